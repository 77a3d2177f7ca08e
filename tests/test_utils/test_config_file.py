"""Files that should be configs."""

import contextlib
import itertools
import json
import sys

import pytest
import yaml
from mmengine.config import Config
from runs import DOG

from mmhiper.registry import MODELS
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError


def test_a_config():
    assert read_config(str(DOG)).model.type == 'HiPer'


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('dog.png', '', r'ends in \.py'),
        ('open.py', 'model = dict(', 'cannot be read'),
        ('unknown.py', 'model = dog', "cannot be read.*'dog'"),
        ('data.py', 'data = 1', 'has no `model`'),
    ],
)
def test_no_config(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_config(tmp_path / name)


@pytest.mark.parametrize(
    'encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be']
)
@pytest.mark.parametrize('suffix', ['.yaml', '.json'])
def test_configs_of_data_from_any_system(tmp_path, suffix, encoding):
    path = tmp_path / f'a{suffix}'
    text = '{\r\n"model": {"type": "HiPer", "source_text": "ein Hündchen"}}'
    path.write_bytes(text.encode(encoding))

    assert read_config(path).model.source_text == 'ein Hündchen'


@pytest.mark.parametrize(
    ('encoding', 'words'),
    [
        ('utf-8-sig', 'a mark of its encoding.*UTF-8 without a mark'),
        ('utf-16', 'a mark of its encoding.*UTF-8 without a mark'),
        ('utf-16-be', 'or is UTF-16.*UTF-8 without a mark'),
        ('latin-1', 'in UTF-8: line 2 has the byte 0xFC'),
    ],
)
def test_python_configs_of_another_encoding(tmp_path, encoding, words):
    text = 'model = dict(\n    source_text="ein Hündchen")\n'
    (tmp_path / 'a.py').write_bytes(text.encode(encoding))
    (tmp_path / 'b.py').write_text("_base_ = ['a.py']\n")

    with pytest.raises(UserError, match=words):
        read_config(tmp_path / 'a.py')
    with pytest.raises(UserError, match=r'b\.py'):
        read_config(tmp_path / 'b.py')


def test_a_base_that_is_missing(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = ['b.py']")
    with pytest.raises(FileNotFoundError, match=r'b\.py'):
        read_config(tmp_path / 'a.py')


# ----------------------------------------------------------- YAML and JSON
DATA = """
_base_: {base}
model:
  type: HiPer
  source_text: a dog
  sd: {{type: mmhiper.StableDiffusion, pretrained: mini-sd}}
optim_wrapper:
  clip_grad: {{type: norm, max_norm: 1}}
"""


@pytest.fixture
def marker(tmp_path):
    """A folder that exists as soon as something runs."""
    return tmp_path / 'marker'


@pytest.mark.parametrize('suffix', ['.yaml', '.yml', '.json'])
def test_a_config_of_data(tmp_path, suffix):
    base = tmp_path / 'base.yaml'
    base.write_text('model: {n_hiper: 7, strength: 1}\nbetas: [0.9, 0.99]')
    path = tmp_path / f'dog{suffix}'
    text = DATA.format(base='base.yaml')
    if suffix == '.json':
        text = json.dumps(yaml.safe_load(text))
    path.write_text(text)

    cfg = read_config(path)

    assert (cfg.model.type, cfg.model.n_hiper) == ('HiPer', 7)
    assert cfg.model.sd.pretrained == 'mini-sd'
    assert cfg.filename == str(path) and '_base_' not in cfg
    # what MMEngine writes of it into a work_dir is read again
    cfg.betas = tuple(cfg.betas)
    cfg.dump(tmp_path / f'dumped{suffix}')
    assert read_config(tmp_path / f'dumped{suffix}').model == cfg.model


def test_a_config_of_data_on_one_of_ours(tmp_path):
    path = tmp_path / 'dog.yaml'
    path.write_text(DATA.format(base=json.dumps(str(DOG))))

    cfg = read_config(path)

    assert cfg.train_cfg.max_iters == 1200
    assert cfg.model.source_text == 'a dog'
    assert cfg.optim_wrapper.optimizer.type == 'Adam'


BAD = '{type: os.mkdir, path: MARKER}'


PAYLOADS = [
    (f'model: {BAD}', '`model.type` must be a name of a registry'),
    (f'model: {{type: HiPer, sd: {BAD}}}', '`model.sd.type`'),
    (f'model: {{a: [{{b: {BAD}}}]}}', r'`model\.a\.0\.b\.type`'),
    (f'model: {{sd: {{scheduler: {BAD}}}}}', 'scheduler.type'),
    ('model: {type: antigravity}', '`model.type`'),
    ('model: {type: mmengine.os.mkdir}', '`model.type`'),
    ('model: {type: torch.nn.Linear}', '`model.type`'),
    ('model: {type: evil.HiPer}', '`model.type`'),
    ('model: {type: [os.mkdir]}', '`model.type`'),
    ('model: {optim_wrapper: {constructor: os.mkdir}}', 'constructor'),
    ('model: {_scope_: evil}', '`model._scope_`'),
    ('model: {}\ndefault_scope: evil', "`default_scope` must be 'mmhip"),
    (
        'model: {}\ncustom_imports: {imports: [evil]}',
        '`custom_imports` imports code',
    ),
    (
        'model: !!python/object/apply:os.mkdir [MARKER]',
        'cannot be read as data.*python/object/apply',
    ),
    ('model: !!python/name:os.mkdir', 'cannot be read as data'),
    ('model: !!python/module:evil', 'cannot be read as data'),
    ('model: {}\n_base_: evil.py', 'based on Python code'),
    ('model: {}\n_base_: [evil.yaml]', r'evil\.yaml.*cannot be read'),
    ('model: {}\n_base_: 5', '`_base_` must be a file or a list'),
    ('model: {}\n_base_: {a: evil.py}', '`_base_` must be'),
    ('model: {}\n_base_: [5]', 'does not exist'),
    (f'model: {{}}\n_base_: {"x" * 300}', 'cannot be read: File name too'),
    (f'model: {{}}\n_base_: {"x" * 9000}', r'^.{,2000}$'),
    ('model:', 'has no `model`, a dict'),
    ('model: HiPer', 'has no `model`, a dict'),
    ('model: {}\n_base_: mmengine::evil.py', 'does not exist'),
    ('model: {}\n_base_: self.yaml', 'based on itself'),
    ("model: {a: '{{$HOME:x}}'}", 'placeholder'),
    ('model.type: os.mkdir\nmodel: {type: HiPer}', "'model.type'"),
    ('model: &a [*a]', 'nested more than'),
    (
        'a: &a [1,1,1,1,1,1,1,1,1,1]\n'
        + ''.join(
            f'{new}: &{new} [{",".join([f"*{old}"] * 10)}]\n'
            for old, new in itertools.pairwise('abcdefgh')
        ),
        'more than 100,000 values',
    ),
    ('[' * 5000, 'cannot be read as data'),
    ('- model', 'holds a list'),
    ('model: {a', 'cannot be read as data'),
    ('_base_: base.yaml\nmodel: {b: 1}', 'does not fit'),
]


def as_json(text: str) -> str | None:
    """The same in JSON, where JSON can say it in a few lines."""
    try:
        text = json.dumps(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return text if len(text) < 10**6 else None


CASES = [('.yaml', *case) for case in PAYLOADS] + [
    ('.json', as_json(text), words)
    for text, words in PAYLOADS
    if as_json(text)
]


@pytest.mark.parametrize(('suffix', 'text', 'words'), CASES)
def test_data_is_never_run(tmp_path, monkeypatch, marker, text, words, suffix):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = text.replace('MARKER', str(marker))
    code = f'import os\nos.mkdir({str(marker)!r})\nmodel = dict()'
    for name in ('evil.py', 'antigravity_.py'):
        (tmp_path / name).write_text(code)
    (tmp_path / 'evil.yaml').write_text(
        f'model: !!python/object/apply:os.mkdir [{marker}]'
    )
    (tmp_path / 'base.yaml').write_text('model: 3')
    path = tmp_path / f'self{suffix}'
    path.write_text(text)

    if suffix == '.json' and 'self.yaml' in text:
        (tmp_path / 'self.yaml').write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_config(path)

    assert '\n' not in str(error.value)
    assert not marker.exists()
    assert 'evil' not in sys.modules


def test_the_payloads_would_work(tmp_path, marker):
    """What MMEngine does with such a file when it is asked."""
    path = tmp_path / 'a.yaml'
    path.write_text(f'model: !!python/object/apply:os.mkdir [{marker}]')

    with contextlib.suppress(FileExistsError):  # it reads a file twice
        Config.fromfile(path)
    assert marker.exists()

    marker.rmdir()
    MODELS.build(dict(type='os.mkdir', path=str(marker)))
    assert marker.exists()
