"""Editors in one call."""

import shutil
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import make_hiper

from mmhiper.apis import list_editors, load_editor
from mmhiper.io import write_export
from mmhiper.utils.errors import FileError


@pytest.fixture
def work_dir(tiny_sd1, tmp_path):
    """What a training run leaves behind, with two checkpoints."""
    model = dict(
        type='HiPer',
        sd=dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
        source_text='a dog',
        n_hiper=3,
    )
    Config(dict(model=model)).dump(tmp_path / 'dog.py')
    editor = make_hiper(tiny_sd1)
    for step in (90, 100):
        with torch.no_grad():
            editor.embedding.tail.fill_(step)
        meta = dict(embedding=editor.export_metadata())
        torch.save(
            dict(state_dict=editor.state_dict(), meta=meta),
            tmp_path / f'iter_{step}.pth',
        )
        write_export(
            tmp_path / f'iter_{step}.safetensors',
            editor.learned_state(),
            editor.export_metadata(),
        )
    return tmp_path


def tail_of(editor) -> float:
    (value,) = editor.embedding.tail.unique().tolist()
    return value


def test_editors_are_listed():
    assert 'HiPer' in list_editors()
    assert 'EmbeddingEditor' not in list_editors()


def test_a_work_dir_is_enough(work_dir):
    editor = load_editor(work_dir)

    assert tail_of(editor) == 100
    assert not editor.training
    assert editor.infer('a cat', num_inference_steps=2, show_progress=False)


def test_the_last_run_in_a_work_dir_counts(work_dir):
    # moved since, and an earlier run had more iterations
    (work_dir / 'last_checkpoint').write_text('/elsewhere/iter_90.pth')

    assert tail_of(load_editor(str(work_dir))) == 90


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_checkpoint_can_be_named(work_dir, suffix):
    path = work_dir / f'iter_90.{suffix}'

    assert tail_of(load_editor(work_dir / 'dog.py', path)) == 90
    cfg = Config.fromfile(work_dir / 'dog.py')
    assert tail_of(load_editor(cfg, str(path))) == 90


def test_without_a_checkpoint_nothing_is_learned(work_dir):
    editor = load_editor(work_dir / 'dog.py')

    source = editor.sd.encode_text(['a dog']).tokens
    assert torch.equal(editor.embedding.tail, source[:, -3:])


def test_the_device_is_chosen(work_dir):
    assert load_editor(work_dir, device='meta').sd.device.type == 'meta'


def test_the_default_scope_stays(work_dir, monkeypatch):
    # what an instance of the scope is called tells it from others
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    DefaultScope.get_instance('of another project', scope_name='mmengine')

    load_editor(work_dir)

    scope = DefaultScope.get_current_instance()
    assert scope.instance_name == 'of another project'
    assert scope.scope_name == 'mmengine'


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_checkpoint_of_another_backbone(
    work_dir, tiny_sd2, tmp_path_factory, suffix
):
    other = make_hiper(tiny_sd2)
    path = tmp_path_factory.mktemp('other') / f'iter_1.{suffix}'
    if suffix == 'pth':
        torch.save(dict(state_dict=other.state_dict()), path)
    else:
        write_export(path, other.learned_state(), other.export_metadata())

    with pytest.raises(ValueError, match='does not belong') as error:
        load_editor(work_dir / 'dog.py', path)

    assert str(tiny_sd2) in str(error.value)
    assert '(1, 3, 64)' in str(error.value)


@pytest.mark.parametrize('name', ['none.pth', 'none.safetensors', 'none.ckpt'])
def test_a_missing_checkpoint(work_dir, name):
    with pytest.raises(FileNotFoundError, match=name):
        load_editor(work_dir, work_dir / name)


@pytest.mark.parametrize('name', ['none.py', 'none'])
def test_a_missing_config(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        load_editor(tmp_path / name)


def test_a_work_dir_before_its_first_checkpoint(work_dir):
    for path in work_dir.glob('iter_*'):
        path.unlink()

    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        load_editor(work_dir)


@pytest.mark.parametrize('checkpoint', [None, 'iter_90.safetensors'])
def test_the_config_of_a_work_dir_is_not_run(work_dir, checkpoint):
    code = f'open({str(work_dir / "marker")!r}, "w").close()'
    (work_dir / 'dog.py').write_text(code)

    path = checkpoint and work_dir / checkpoint
    assert tail_of(load_editor(work_dir, path)) == (90 if checkpoint else 100)

    assert not (work_dir / 'marker').exists()
    (work_dir / 'dog.py').unlink()  # nor needed
    assert tail_of(load_editor(work_dir)) == 100


def test_a_checkpoint_that_says_nothing_needs_the_config(work_dir):
    path = work_dir / 'iter_100.pth'
    state = torch.load(path, weights_only=True)['state_dict']
    torch.save(dict(state_dict=state, meta={}), path)

    with pytest.raises(FileError, match='Name the config too') as error:
        load_editor(work_dir)

    assert str(path) in str(error.value)
    assert tail_of(load_editor(work_dir / 'dog.py', path)) == 100


def test_another_place_of_the_backbone(work_dir, tiny_sd1, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'elsewhere'
    shutil.copytree(tiny_sd1, moved)
    path = work_dir / 'iter_90.safetensors'

    for source in (path, work_dir / 'dog.py'):
        checkpoint = None if source == path else path
        editor = load_editor(source, checkpoint, backbone=str(moved))
        assert (editor.sd.backbone, tail_of(editor)) == (str(moved), 90)


def test_another_backbone_has_to_fit(work_dir, tiny_sd2):
    with pytest.raises(ValueError, match='does not belong'):
        load_editor(work_dir, backbone=str(tiny_sd2))


def test_a_truncated_checkpoint(work_dir):
    path = work_dir / 'iter_90.pth'
    path.write_bytes(path.read_bytes()[:200])

    with pytest.raises(ValueError, match='not a complete checkpoint'):
        load_editor(work_dir, path)


def test_a_file_with_tensors_of_something_else(work_dir):
    path = work_dir / 'weights.pth'
    torch.save(dict(weight=torch.zeros(1)), path)

    with pytest.raises(ValueError, match="no 'state_dict' of tensors"):
        load_editor(work_dir, path)


class Rogue:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ('unpickled!',))


def test_nothing_but_tensors_and_plain_values_is_unpickled(work_dir, capfd):
    path = work_dir / 'rogue.pth'
    torch.save(dict(state_dict={}, rogue=Rogue()), path)

    with pytest.raises(ValueError, match='plain values'):
        load_editor(work_dir, path)

    assert 'unpickled!' not in capfd.readouterr().out
