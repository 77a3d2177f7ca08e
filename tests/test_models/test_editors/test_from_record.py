"""Every editor loads from its file alone, exactly; and nothing runs."""

import json
import sys
import textwrap
from pathlib import Path

import inversion
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from runs import REPO
from safetensors.torch import save_file
from tiny import picture, randomise

from mmhiper.apis import list_editors, load_editor
from mmhiper.cli import main
from mmhiper.inferencer import EditInferencer
from mmhiper.io import read_export, read_token_file, write_export
from mmhiper.io.modelspec import without_fields
from mmhiper.models import TextualInversion
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils.errors import FileError, UserError

TEXTS = dict(source_text='a dog', target_text='a cat', val_prompts='a big cat')
WORD = dict(
    placeholder_token='2024',
    initialize_token='x',
    num_vectors_per_token=2,
    directional=True,
)
INVERSION = dict(
    TEXTS,
    num_steps=2,
    guidance_scale=3,
    edit=dict(tau_s=0.5, reweight=dict(cat=2.0), blend_words=['dog', 'cat']),
    map_side=2,
    data_preprocessor=dict(size=32),
)
# Values of every kind, none of them the default.
ARGUMENTS = {
    'HiPer': dict(
        source_text=['a dog', 'null'],
        target_text=['a cat', '2024'],
        n_hiper=4,
        strength=1,
        data_preprocessor=dict(type='ImagePreprocessor', random_flip=True),
        val_prompts=['[1]'],
        hold_outside=0.5,
    ),
    'TextualInversion': dict(
        placeholder_token='2024',
        initialize_token='x',
        num_vectors_per_token=3,
        val_prompts=('a 2024', 'two 2024'),
        progressive_interval=5,
        per_image_tokens=2,
        embedding_reg_weight=0.1,
        hold_outside=1.0,
    ),
    'ExtendedTextualInversion': WORD,
    'ProSpect': dict(WORD, num_stages=3),
    'DDIMInversion': INVERSION,
    'DirectInversion': INVERSION,
    'NegativePromptInversion': INVERSION,
    'NullTextInversion': dict(INVERSION, num_inner_steps=3),
    'StyleDiffusion': dict(INVERSION, num_inner_steps=3, attention_weight=0.0),
    # of docs/en/add_an_editor.md
    'TextInterpolation': dict(
        source_text='a dog', target_text='a cat', toward=0.25
    ),
}


@pytest.fixture(scope='module', autouse=True)
def outside_editor():
    """The editor of an outside package, as its users import it."""
    sys.path.insert(0, str(REPO / 'docs' / 'en' / 'examples'))
    import interpolation  # noqa: F401

    yield
    sys.path.pop(0)


@pytest.fixture(scope='module')
def other_encoder(tiny_sd1, tmp_path_factory):
    """An image encoder that is not the backbone's, which has none."""
    target = tmp_path_factory.mktemp('encoder') / 'model'
    return inversion.with_image_encoder(tiny_sd1, target, 32) / 'image_encoder'


@pytest.fixture(scope='module', params=ARGUMENTS)
def learned(request, tiny_sd1, other_encoder, tmp_path_factory):
    """An editor that has learned, and its checkpoint and export."""
    name = request.param
    sd = dict(
        type='StableDiffusion',
        pretrained='owner/large',
        without_cuda=str(tiny_sd1),
        vae_tiling=True,
        scheduler=dict(steps_offset=0),
        unet=dict(pretrained=str(tiny_sd1), subfolder='unet'),
    )
    if 'num_steps' not in ARGUMENTS[name]:
        sd['scheduler'] = dict(type='EulerDiscreteScheduler')
    config = dict(ARGUMENTS[name], type=name, sd=sd)
    if name == 'StyleDiffusion':
        config['image_encoder'] = dict(
            pretrained='owner/clip', without_cuda=str(other_encoder)
        )
    with DefaultScope.overwrite_default_scope(SCOPE):
        editor = MODELS.build(config)
    if editor.deterministic:
        editor.invert(**inversion.batch(editor, picture(0)))
    randomise(editor)
    folder = tmp_path_factory.mktemp(name)
    record = dict(editor.export_metadata(), step=7, seed=4)
    torch.save(
        dict(state_dict=editor.state_dict(), meta=dict(embedding=record)),
        folder / 'iter_7.pth',
    )
    write_export(folder / 'iter_7.safetensors', editor.learned_state(), record)
    return editor.eval(), folder


@pytest.fixture(scope='module', autouse=True)
def no_cuda():
    """`without_cuda` is what the editors are on."""
    if torch.cuda.is_available():
        pytest.skip('a machine without a CUDA device is what this is about')


def drawn(editor) -> np.ndarray:
    prompt = 'a 2024' if hasattr(editor, 'placeholders') else 'a cat'
    steps = {} if editor.deterministic else dict(num_inference_steps=2)
    options = dict(show_progress=False, return_type='numpy', **steps)
    return editor.infer(prompt, **options)['samples']


def test_all_editors_are_here():
    assert set(list_editors()) <= set(ARGUMENTS)


@pytest.mark.filterwarnings('ignore:.*timesteps are trained')
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_file_alone_is_enough(learned, suffix, tiny_sd1, other_encoder):
    editor, folder = learned
    again = load_editor(folder / f'iter_7.{suffix}', device='cpu')

    assert type(again) is type(editor)
    record = again.export_metadata()
    assert record == editor.export_metadata()
    for name, value in ARGUMENTS[record['editor']].items():
        expected = list(value) if isinstance(value, tuple) else value
        if name == 'data_preprocessor':
            expected = {k: v for k, v in value.items() if k != 'type'}
        assert record['arguments'][name] == expected, name
    assert record['backbone'] == again.sd.backbone == str(tiny_sd1)
    assert record['sd']['vae_tiling'] and again.sd.vae.use_tiling
    assert again.sd.process.samples_with == editor.sd.process.samples_with
    assert again.sd.scheduler.config == editor.sd.scheduler.config
    assert record['sd']['unet'] == dict(
        pretrained=str(tiny_sd1), subfolder='unet'
    )
    if record['editor'] == 'StyleDiffusion':
        assert again.image_encoder.name == str(other_encoder)
    if isinstance(editor, TextualInversion):
        assert again.placeholder_token == '2024'
    if suffix == 'pth':
        for name, tensor in editor.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name
    assert np.array_equal(drawn(again), drawn(editor))


def test_its_name_or_its_folder_serve_too(learned):
    editor, folder = learned
    name = type(editor).__name__

    for source in ((name, folder / 'iter_7.safetensors'), (folder,)):
        assert type(load_editor(*source)).__name__ == name


def test_a_record_is_one_entry_of_plain_json(learned):
    editor, folder = learned
    from safetensors import safe_open

    with safe_open(folder / 'iter_7.safetensors', 'pt') as file:
        metadata = file.metadata()

    assert sorted(without_fields(metadata)) == ['embedding', 'format']
    record = json.loads(metadata['embedding'])
    assert '"type"' not in metadata['embedding']
    assert record == dict(editor.export_metadata(), step=7, seed=4)
    checkpoint = torch.load(folder / 'iter_7.pth')
    assert checkpoint['meta']['embedding'] == record


def test_an_installed_package_is_found_by_its_entry_point(
    tiny_sd1, tmp_path, monkeypatch
):
    site = tmp_path / 'site'
    info = site / 'outside-1.0.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text('Name: outside\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(
        '[mmhiper.editors]\nOutside = outside_editors:Outside\n'
    )
    (site / 'outside_editors.py').write_text(
        textwrap.dedent("""
        from mmhiper.models import HiPer
        from mmhiper.registry import MODELS

        @MODELS.register_module()
        class Outside(HiPer):
            pass
        """)
    )
    config = dict(
        type='mmhiper.HiPer',
        sd=dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
        source_text='a dog',
    )
    editor = MODELS.build(config)
    record = dict(editor.export_metadata(), editor='Outside')
    file = tmp_path / 'a.safetensors'
    write_export(file, editor.learned_state(), record)

    with pytest.raises(FileError, match="of the editor 'Outside'"):
        load_editor(file)
    monkeypatch.syspath_prepend(site)
    assert 'Outside' in list_editors()
    assert 'outside_editors' not in sys.modules  # listed, not imported
    try:
        assert type(load_editor(file)).__name__ == 'Outside'
    finally:
        MODELS.module_dict.pop('Outside', None)
        sys.modules.pop('outside_editors', None)


# ---------------------------------------------------------------- strangers
@pytest.fixture
def marker(tmp_path):
    """A folder that exists as soon as something runs."""
    return tmp_path / 'marker'


def payload(marker: Path) -> dict:
    return dict(type='os.mkdir', path=str(marker))


def test_the_payload_would_work(marker):
    MODELS.build(payload(marker))

    assert marker.exists()


@pytest.fixture(scope='module')
def hiper(tiny_sd1):
    config = dict(
        type='mmhiper.HiPer',
        sd=dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
        source_text='a dog',
    )
    return MODELS.build(config)


def changed(record: dict, place: tuple, value) -> dict:
    """A record with another value somewhere."""
    record = json.loads(json.dumps(record))
    part = record
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    return record


CODE = "__import__('os').mkdir('marker')"
ATTACKS = {
    'sd': lambda bad: (('sd',), bad),
    'unet': lambda bad: (('sd', 'unet'), bad),
    'scheduler': lambda bad: (('sd', 'scheduler'), bad),
    'deep': lambda bad: (('sd', 'scheduler'), dict(a=[dict(b=bad)])),
    'sampler': lambda bad: (('sd', 'sampler'), 'os.mkdir'),
    'other sampler': lambda bad: (('sd', 'sampler'), 'DiffusionPipeline'),
    'from_pretrained': lambda bad: (
        ('sd', 'text_encoder'),
        dict(trust_remote_code=True),
    ),
    'preprocessor': lambda bad: (('arguments', 'data_preprocessor'), bad),
    'argument sd': lambda bad: (('arguments', 'sd'), bad),
    'unknown argument': lambda bad: (('arguments', 'image_encoder'), bad),
    'text': lambda bad: (('arguments', 'source_text'), bad),
    'number': lambda bad: (('arguments', 'n_hiper'), CODE),
    'editor': lambda bad: (('editor',), 'os.mkdir'),
    'dunder': lambda bad: (('editor',), '__import__'),
    'other class': lambda bad: (('editor',), 'StableDiffusion'),
    'parent class': lambda bad: (('editor',), 'EmbeddingEditor'),
    'of mmengine': lambda bad: (('editor',), 'Linear'),
    'type': lambda bad: (('type',), 'os.mkdir'),
    'config': lambda bad: (('config',), CODE),
    'custom_imports': lambda bad: (('custom_imports',), dict(imports=['a'])),
    'version': lambda bad: (('version',), '1'),
    'later': lambda bad: (('version',), 2),
    'url': lambda bad: (('backbone',), 'https://example.com/model'),
    'file url': lambda bad: (('backbone',), 'file:///etc'),
    'share': lambda bad: (('backbone',), r'\\host\share\model'),
    'share /': lambda bad: (('backbone',), '//host/share/model'),
    'device': lambda bad: (('backbone',), '/dev/zero'),
    'process': lambda bad: (('backbone',), '/proc/self/cwd'),
    'any file': lambda bad: (('backbone',), '/etc/passwd'),
    'nothing': lambda bad: (('backbone',), ''),
    'nested': lambda bad: (
        ('sd', 'vae'),
        dict(pretrained=r'\\host\share\model'),
    ),
    'not finite': lambda bad: (('arguments', 'strength'), 1e999),
    'huge': lambda bad: (('arguments', 'n_hiper'), 10**9),
    'large': lambda bad: (
        ('arguments', 'data_preprocessor'),
        dict(size=10**8),
    ),
    'long': lambda bad: (
        ('sd', 'scheduler'),
        dict(num_train_timesteps=10**12),
    ),
    'no number': lambda bad: (('sd', 'scheduler'), dict(beta_start='x')),
    'none': lambda bad: (('arguments', 'source_text'), None),
}


def write(kind: str, path: Path, editor, record) -> Path:
    """A file with this record, however wrong it is."""
    if kind == 'pth':
        path = path.with_suffix('.pth')
        meta = dict(embedding=record)
        torch.save(dict(state_dict=editor.state_dict(), meta=meta), path)
    else:
        path = path.with_suffix('.safetensors')
        text = json.dumps(record)
        metadata = dict(format='mmhiper', embedding=text)
        save_file(editor.learned_state(), path, metadata)
    return path


@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
@pytest.mark.parametrize('attack', ATTACKS)
def test_a_record_is_never_run(
    hiper, tmp_path, monkeypatch, marker, attack, kind
):
    monkeypatch.chdir(tmp_path)
    place, value = ATTACKS[attack](payload(marker))
    record = changed(hiper.export_metadata(), place, value)
    path = write(kind, tmp_path / 'a', hiper, record)

    with pytest.raises(UserError) as error:
        load_editor(path)
    with pytest.raises(UserError):
        load_editor('HiPer', path)

    assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    'record', [None, [], 'HiPer', 5, ['version', 1], {'version': 1}]
)
def test_a_record_of_another_kind(hiper, tmp_path, record):
    for kind in ('pth', 'safetensors'):
        path = write(kind, tmp_path / 'a', hiper, record)
        if record is None and kind == 'pth':  # it says nothing
            continue
        with pytest.raises(FileError, match=str(path)):
            load_editor(path)


@pytest.mark.parametrize(
    'text', ['{', '[' * 100_000, 'NaN', '"' + 'a' * 2**20]
)
def test_a_record_that_is_no_json(hiper, tmp_path, text):
    path = tmp_path / 'a.safetensors'
    metadata = dict(format='mmhiper', embedding=text)
    save_file(hiper.learned_state(), path, metadata)

    with pytest.raises(FileError, match=str(path)):
        load_editor(path)


def test_what_0_1_0_wrote_is_never_run_either(hiper, tmp_path, marker):
    """It merged all entries of the metadata into a config."""
    flat = dict(
        editor='HiPer', backbone='mini-sd', source_text='["a dog"]', step='7'
    )
    bad = json.dumps(payload(marker))
    for attack in (
        dict(sd=bad),
        dict(data_preprocessor=bad),
        dict(source_text=bad),
        dict(n_hiper=bad),
        dict(type='os.mkdir'),
        dict(editor='os.mkdir'),
    ):
        path = tmp_path / 'a.safetensors'
        metadata = dict(flat, format='mmhiper', **{})
        save_file(hiper.learned_state(), path, metadata | attack)
        with pytest.raises(FileError, match=str(path)):
            load_editor(path)
        torch.save(
            dict(
                state_dict=hiper.state_dict(),
                meta=dict(embedding=flat | attack),
            ),
            path.with_suffix('.pth'),
        )
        with pytest.raises(FileError, match=r'a\.pth'):
            load_editor(path.with_suffix('.pth'))
    assert not marker.exists()


def test_the_command_line_tells_it_in_one_line(
    hiper, tmp_path, marker, capsys
):
    record = changed(hiper.export_metadata(), ('sd',), payload(marker))
    path = write('safetensors', tmp_path / 'a', hiper, record)

    for command in (
        ['infer', str(path), '--prompt', 'x'],
        ['infer', 'HiPer', str(path), '--prompt', 'x'],
        ['info', str(path)],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(command)
        assert exit_.value.code == 1
        out, error = capsys.readouterr()
        (line,) = error.splitlines()
        assert line.startswith('error: ') and str(path) in line and not out
    assert not marker.exists()


def test_a_backbone_that_is_elsewhere(hiper, tmp_path, tiny_sd1, capsys):
    record = changed(hiper.export_metadata(), ('backbone',), '/models/none')
    path = write('safetensors', tmp_path / 'a', hiper, record)

    with pytest.raises(FileNotFoundError, match='--backbone') as error:
        load_editor(path)
    assert '/models/none' in str(error.value)

    inferencer = EditInferencer(path, backbone=str(tiny_sd1))
    expected = hiper.infer('a', num_inference_steps=1, show_progress=False)
    got = inferencer('a', num_inference_steps=1, show_progress=False)
    assert got['samples'][0].tobytes() == expected['samples'][0].tobytes()


def test_the_command_line_takes_another_backbone(
    hiper, tmp_path, tiny_sd1, capsys
):
    record = changed(hiper.export_metadata(), ('backbone',), '/models/none')
    path = write('safetensors', tmp_path / 'a', hiper, record)
    command = ['infer', str(path), '--prompt', 'x', '--num-images', '1']

    with pytest.raises(SystemExit):
        main(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert "'/models/none'" in line and '--backbone' in line
    main([*command, '--backbone', str(tiny_sd1)])
    assert (tmp_path / 'infer' / '000.png').is_file()


def test_a_part_that_is_elsewhere(hiper, tmp_path):
    record = changed(
        hiper.export_metadata(), ('sd', 'vae'), dict(pretrained='/none')
    )
    path = write('safetensors', tmp_path / 'a', hiper, record)

    with pytest.raises(FileNotFoundError, match=r"'/none'.*Name the config"):
        load_editor(path)


def test_words_of_a_stranger(tmp_path, marker):
    """Word files are read with the same record."""
    record = dict(
        version=1, editor='TextualInversion', sd=payload(marker), arguments={}
    )
    path = tmp_path / 'word.safetensors'
    metadata = dict(format='mmhiper', embedding=json.dumps(record))
    save_file({'<a>': torch.ones(1, 32)}, path, metadata)

    with pytest.raises(UserError, match=r"word\.safetensors.*has a 'type'"):
        read_token_file(path)
    assert not marker.exists()


def test_an_export_of_later_fields_is_read_by_name(hiper, tmp_path):
    path = write('safetensors', tmp_path / 'a', hiper, dict(version=3, new=1))

    assert read_export(path)[1] == dict(version=3, new=1)
    with pytest.raises(FileError, match='Update mmhiper'):
        load_editor(path)
