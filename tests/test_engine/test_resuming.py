"""Which checkpoint a run goes on from, and what it says about it."""

import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from runs import DOG, REPO, config, draw_image, embedding_of, learn

from mmhiper.cli import main
from mmhiper.engine.launch import train
from mmhiper.engine.resuming import checkpoint_folder, make_plan
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.work_dir import (
    find_checkpoint,
    read_mark,
    write_mark,
)

STYLE = REPO / 'configs' / 'style_diffusion' / 'dog.py'


def plan(cfg, resume='auto', anyway=False):
    """What a run would do, without a backbone."""
    register_all_modules()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return make_plan(cfg, dataset, resume, anyway)


def said(plan) -> str:
    """All that the user would read."""
    return '\n'.join(words for _, words in plan.words)


def touch(folder: Path, *steps: int, **content) -> None:
    """Checkpoints as earlier versions wrote them, with nothing in them."""
    for step in steps:
        whole = dict(
            state_dict={},
            meta=dict(iter=step, epoch=0),
            optimizer=dict(state={}, param_groups=[]),
        )
        torch.save(whole | content, folder / f'iter_{step}.pth')


@pytest.fixture(scope='module')
def done(tiny_sd1, tmp_path_factory):
    """A run of six iterations with checkpoints 2, 4 and 6."""
    folder = tmp_path_factory.mktemp('resuming')
    cfg = config(folder, tiny_sd1, iters=6)
    cfg.default_hooks.checkpoint.interval = 2
    learn(cfg)
    return cfg


@pytest.fixture
def copy(done, tmp_path):
    """The same in a folder to break."""
    cfg = Config(done.to_dict(), filename=done.filename)
    cfg.work_dir = str(tmp_path / 'moved')
    shutil.copytree(done.work_dir, cfg.work_dir)
    return cfg


# ------------------------------------------------------- which checkpoint
def test_nothing_to_resume_is_said(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1)

    nothing = plan(cfg)

    assert nothing.checkpoint == ''
    assert 'Nothing to resume' in said(nothing)
    assert 'beginning' in said(nothing)
    with pytest.raises(FileNotFoundError, match=r'none\.pth.*does not exist'):
        plan(cfg, str(tmp_path / 'none.pth'))


def test_what_cannot_be_resumed_is_refused(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1)
    cfg.work_dir = str(tmp_path)
    (tmp_path / 'iter_2.pth').write_bytes(b'half a file')
    (tmp_path / 'iter_2.safetensors').touch()

    for resume in ('auto', str(tmp_path / 'iter_2.pth')):
        with pytest.raises(ValueError, match=r'iter_2\.pth.*not a complete'):
            plan(cfg, resume)
    with pytest.raises(ValueError, match=r'is an export.*iter_N\.pth'):
        plan(cfg, str(tmp_path / 'iter_2.safetensors'))


def test_a_moved_folder_and_an_empty_note(copy):
    moved = Path(copy.work_dir)

    assert plan(copy).checkpoint == str(moved.absolute() / 'iter_6.pth')
    (moved / 'last_checkpoint').write_text('')
    (moved / 'run.json').write_text('')
    assert plan(copy).checkpoint == str(moved.absolute() / 'iter_6.pth')


def test_earlier_versions_noted_which_was_the_last(tiny_sd1, tmp_path):
    """Not the larger number that an earlier, longer run left behind."""
    touch(tmp_path, 300, 500, 1200)
    (tmp_path / 'last_checkpoint').write_text('work_dirs/x/iter_500.pth')
    cfg = config(tmp_path, tiny_sd1)
    cfg.work_dir = str(tmp_path)

    resumed = plan(cfg)
    assert Path(resumed.checkpoint).name == 'iter_500.pth'
    assert 'does not say what it was trained with' in said(resumed)
    assert find_checkpoint(tmp_path).name == 'iter_500.pth'

    (tmp_path / 'iter_500.pth').write_bytes(b'')
    assert Path(plan(cfg).checkpoint).name == 'iter_300.pth'


@pytest.mark.parametrize('left', [0, 100, -1])
def test_a_damaged_checkpoint_gives_way_to_a_complete_one(copy, left):
    """Empty, cut in the midst, and by its last byte."""
    newest = Path(copy.work_dir, 'iter_6.pth')
    newest.write_bytes(newest.read_bytes()[:left])

    resumed = plan(copy)

    assert Path(resumed.checkpoint).name == 'iter_4.pth'
    assert 'iter_6.pth' in said(resumed) and 'damaged' in said(resumed)
    with pytest.warns(UserWarning, match=r'iter_6\.pth.*damaged'):
        found = find_checkpoint(Path(copy.work_dir))
    assert found.name == 'iter_4.pth'


def test_a_new_run_is_not_finished_by_an_older_one(copy, monkeypatch):
    """A folder with a longer run, a new one that was killed at its start."""
    folder = Path(copy.work_dir)
    older = read_mark(folder)
    new = config(folder.parent, copy.model.sd.pretrained, iters=4)
    new.work_dir = copy.work_dir
    new.default_hooks.checkpoint.interval = 2
    with monkeypatch.context() as patch, pytest.raises(OSError, match='kill'):
        patch.setattr('mmhiper.engine.launch.ConciseRunner.from_cfg', _killed)
        learn(new)
    assert read_mark(folder).id != older.id

    begun = plan(new)
    assert begun.checkpoint == ''
    assert 'iter_6.pth, iter_4.pth' in said(begun)
    with pytest.warns(UserWarning, match=r'no checkpoint yet.*iter_6\.pth'):
        assert find_checkpoint(folder).name == 'iter_6.pth'

    learn(new)
    assert Path(plan(new).checkpoint).name == 'iter_4.pth'
    assert find_checkpoint(folder).name == 'iter_4.pth'
    # the older one, named, is the last run again
    copy.train_cfg.max_iters = 6
    train(copy, resume=str(folder / 'iter_6.pth'))
    assert read_mark(folder).id == older.id
    assert find_checkpoint(folder).name == 'iter_6.pth'


def _killed(cfg):
    raise OSError('killed')


def test_a_run_that_was_resumed_from_an_old_checkpoint_goes_on(
    copy, monkeypatch
):
    """Killed before its first own checkpoint, of a version without runs."""
    folder = Path(copy.work_dir)
    for path in folder.glob('iter_*.pth'):
        content = torch.load(path)
        del content['meta']['run']
        torch.save(content, path)
    (folder / 'run.json').unlink()
    monkeypatch.setattr(
        'mmhiper.engine.launch.ConciseRunner.from_cfg', _killed
    )
    for _ in range(2):
        with pytest.raises(OSError, match='killed'):
            train(copy, resume='auto')
        assert read_mark(folder).resumed.endswith('iter_6.pth')
        assert Path(plan(copy).checkpoint).name == 'iter_6.pth'


def test_a_strangers_note_leads_nowhere_else(copy, tmp_path):
    """A path in `run.json` counts only for checkpoints that are of the run."""
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    touch(elsewhere, 9)
    folder = Path(copy.work_dir)
    for path in folder.glob('iter_*'):
        path.unlink()
    mark = replace(
        read_mark(folder),
        checkpoints=str(elsewhere),
        resumed=str(elsewhere / 'iter_9.pth'),
    )
    write_mark(folder, mark)

    with pytest.raises(FileNotFoundError):
        find_checkpoint(folder)


@pytest.mark.parametrize(
    'text', ['', 'x', '[]', '{}', '{"id": 1}', '[' * 90_000, '{"pid": "x"}']
)
def test_a_note_that_is_none_is_left_alone(tmp_path, text):
    (tmp_path / 'run.json').write_text(text)

    assert read_mark(tmp_path) is None


# ------------------------------------------------------- the same run
def differing(copy, **values):
    """The settings of another run."""
    cfg = Config(copy.to_dict(), filename=copy.filename)
    cfg.merge_from_dict(values)
    return cfg


def test_the_same_settings_need_no_words(done):
    assert said(plan(done)).count('\n') == 0


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.source_text', 'a cat'),
        ('model.n_hiper', 7),
        ('model.sd.pretrained', 'other/model'),
        ('model.type', 'TextualInversion'),
    ],
)
def test_a_mixture_is_refused(done, key, value):
    cfg = differing(done, **{key: value})

    with pytest.raises(ValueError, match='mix two trainings') as refusal:
        plan(cfg)
    words = str(refusal.value)
    assert key in words and str(value) in words and '--resume-anyway' in words
    anyway = plan(cfg, anyway=True)
    assert Path(anyway.checkpoint).name == 'iter_6.pth'
    assert key in said(anyway)


def test_another_picture_is_refused_and_a_copy_is_not(done, tmp_path):
    same = tmp_path / 'copy.png'
    same.write_bytes(Path(done.train_dataloader.dataset.img).read_bytes())
    other = draw_image(tmp_path / 'other.png', seed=1)

    name = 'train_dataloader.dataset.img'
    assert plan(differing(done, **{name: str(same)})).checkpoint
    with pytest.raises(ValueError, match='pictures'):
        plan(differing(done, **{name: str(other)}))
    crop = differing(done)
    crop.train_dataloader.dataset.pipeline[1].crop = (0, 0, 32, 32)
    with pytest.raises(ValueError, match='pictures'):
        plan(crop)


def test_other_settings_are_listed(done):
    cfg = differing(
        done,
        **{
            'optim_wrapper.optimizer.lr': 0.5,
            'randomness.seed': 7,
            'model.target_text': 'a sleeping dog',
        },
    )

    words = said(plan(cfg))

    assert 'optimizer.lr: 0.005 in the checkpoint (stays), 0.5 now' in words
    assert 'seed: 200000 in the checkpoint (stays), 7 now' in words
    assert 'target_text: "a sitting dog" in the checkpoint, "a sl' in words
    assert words.count(' in the checkpoint') == 3


def test_resume_anyway_on_the_command_line(done, capsys):
    folder = Path(done.work_dir)
    command = ['train', str(folder / 'dog.py'), '--work-dir', str(folder)]
    # mmengine lets runs of the same name and second share a log
    name = f'experiment_name={uuid.uuid4().hex}'
    values = ['--cfg-options', 'model.source_text=a cat', name]

    with pytest.raises(SystemExit) as exit_:
        main([*command, '--resume', *values])
    assert exit_.value.code == 1
    assert 'error: ' in capsys.readouterr().err
    before = embedding_of(folder / 'iter_6.pth')
    assert main([*command, '--resume-anyway', *values]) == 0
    assert torch.equal(embedding_of(folder / 'iter_6.pth'), before)
    assert 'Nothing to do: all 6 iterations' in _log(folder)


def _log(folder: Path) -> str:
    """Of the run that was started last."""
    return max(folder.glob('*/*.log'), key=os.path.getmtime).read_text()


# ------------------------------------------------------- lengths
@pytest.mark.parametrize('length', [0, -1, 2.5, 'many', True])
def test_a_run_of_no_iterations_is_refused(tiny_sd1, tmp_path, length):
    cfg = config(tmp_path, tiny_sd1, iters=length)

    with pytest.raises(ValueError, match=r'max_iters.*at least 1'):
        train(cfg)
    assert not Path(cfg.work_dir).exists()


def test_a_config_that_says_resume(copy):
    """As in other OpenMMLab projects; what a run leaves does not say it."""
    folder = Path(copy.work_dir)
    copy.resume = True
    copy.experiment_name += '-resumed'
    assert train(copy).iter == 6

    left = Config.fromfile(folder / 'dog.py')
    assert not left.resume and left.load_from is None
    assert 'Nothing to do' in _log(folder)


def test_less_than_is_done_is_refused_and_as_much_is_nothing(copy):
    copy.train_cfg.max_iters = 4
    with pytest.raises(ValueError, match=r'6 iterations, but.*is 4'):
        learn(copy, resume='auto')

    copy.train_cfg.max_iters = 6
    learn(copy, resume='auto')
    assert 'Nothing to do: all 6 iterations are done' in _log(
        Path(copy.work_dir)
    )


# ------------------------------------------------------- where checkpoints lie
def test_checkpoints_elsewhere_and_few_of_them(tiny_sd1, tmp_path, capsys):
    """`out_dir` and `max_keep_ckpts`, followed by all that reads them."""
    options = {
        'default_hooks.checkpoint.out_dir': str(tmp_path / 'out'),
        'default_hooks.checkpoint.max_keep_ckpts': 2,
        'default_hooks.checkpoint.interval': 1,
    }
    cfg = config(tmp_path, tiny_sd1, iters=4, **options)
    folder = checkpoint_folder(cfg)
    assert folder == tmp_path / 'out' / 'run'

    train(cfg)

    kept = {'iter_3.pth', 'iter_4.pth'}
    kept |= {name.replace('.pth', '.safetensors') for name in kept}
    assert {file.name for file in folder.iterdir()} == kept
    assert not list(Path(cfg.work_dir).glob('*.pth'))
    assert f'checkpoint  {folder}/iter_4.pth' in _log(Path(cfg.work_dir))
    assert find_checkpoint(Path(cfg.work_dir)) == folder / 'iter_4.pth'
    # goes on there, and keeps fewer
    cfg.train_cfg.max_iters = 5
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.experiment_name += '-resumed'
    runner = train(cfg, resume='auto')
    assert runner.iter == 5
    assert {file.name for file in folder.iterdir()} == {
        'iter_5.pth',
        'iter_5.safetensors',
    }


def test_checkpoints_by_epoch(tiny_sd1, tmp_path):
    """Of a loop over iterations there is one, at the end."""
    cfg = config(tmp_path, tiny_sd1, iters=3)
    cfg.default_hooks.checkpoint.by_epoch = True

    train(cfg)

    folder = Path(cfg.work_dir)
    assert {
        file.name for file in folder.glob('*.*') if 'epoch' in file.name
    } == {
        'epoch_1.pth',
        'epoch_1.safetensors',
    }
    assert f'{folder}/epoch_1.pth' in _log(folder)
    assert find_checkpoint(folder).name == 'epoch_1.pth'
    cfg.experiment_name += '-resumed'
    assert train(cfg, resume='auto').iter == 3


# ------------------------------------------------------- previews
@pytest.mark.parametrize('file', [DOG, STYLE])
def test_a_missing_preview_is_drawn_when_resumed(tiny_sd1, tmp_path, file):
    """Killed between its last checkpoint and its last preview."""
    cfg = config(tmp_path, tiny_sd1, 4, file, previews=True)
    if file == STYLE:  # an editor of its kind that needs no image encoder
        del cfg.train_cfg.max_iters
        del cfg.model.image_encoder, cfg.model.attention_weight
        cfg.model.update(
            type='NullTextInversion', num_steps=2, num_inner_steps=1
        )
    for hook in cfg.custom_hooks:
        if hook.type == 'PreviewHook':
            hook.interval = 1
    train(cfg)
    folder = Path(cfg.work_dir)
    last = max((folder / 'previews').iterdir())
    drawn = last.read_bytes()
    last.unlink()
    (folder / 'timeline.png').unlink()

    cfg.experiment_name += '-resumed'
    train(cfg, resume='auto')

    assert last.read_bytes() == drawn
    assert (folder / 'timeline.png').is_file()
