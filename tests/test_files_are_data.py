"""A file is data: nothing that one names is ever run."""

import ast
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import REPO, config
from safetensors.torch import save_file
from single_file import original_layout

from mmhiper.apis import load_editor
from mmhiper.cli import main
from mmhiper.datasets import load_upright_image
from mmhiper.engine.launch import train
from mmhiper.engine.resuming import make_plan
from mmhiper.evaluation import ClipFeatures
from mmhiper.io import check_resumable, read_checkpoint, read_token_file
from mmhiper.models import StableDiffusion
from mmhiper.models.image_encoder import ImageEncoder
from mmhiper.models.loading import BUNDLED
from mmhiper.utils.errors import UserError

import judge

# ------------------------------------------------------------ what code says
FORBIDDEN_MODULES = {
    'pickle',
    'cPickle',
    'dill',
    'cloudpickle',
    'joblib',
    'marshal',
    'shelve',
}
FORBIDDEN_CALLS = {
    'eval',
    'exec',
    'os.system',
    'torch.hub.load',
    'torch.jit.load',
    'yaml.full_load',
    'yaml.load',
    'yaml.unsafe_load',
}
FORBIDDEN_OPTIONS = {
    'allow_pickle': True,
    'shell': True,
    'trust_remote_code': True,
    'weights_only': False,
}


def dotted(node: ast.AST) -> str:
    """The name that is called, such as 'torch.load'."""
    if isinstance(node, ast.Attribute):
        return f'{dotted(node.value)}.{node.attr}'
    return node.id if isinstance(node, ast.Name) else ''


def breaches(code: str) -> list[str]:
    """What in a module could make code of a file."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module, *(f'{a.name}' for a in node.names)}
            if node.module in ('torch', 'yaml') and 'load' in names:
                found.append(f'from {node.module} import load')
        else:
            names = set()
        found += sorted(names & FORBIDDEN_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        options = {
            each.arg: each.value.value
            for each in node.keywords
            if isinstance(each.value, ast.Constant)
        }
        if name in FORBIDDEN_CALLS:
            found.append(name)
        if name == 'torch.load' and 'weights_only' not in options:
            found.append(name)
        found += [
            f'{name}({key}={value})'
            for key, value in FORBIDDEN_OPTIONS.items()
            if options.get(key) is value
        ]
    return found


@pytest.mark.parametrize(
    'code',
    [
        'import torch\ntorch.load(path)',
        'torch.load(path, weights_only=flag)',
        'torch.load(path, weights_only=False)',
        'from torch import load',
        'import pickle',
        'from pickle import loads',
        'np.load(path, allow_pickle=True)',
        'yaml.load(text)',
        'eval(text)',
        'AutoModel.from_pretrained(name, trust_remote_code=True)',
    ],
)
def test_the_rule_finds_what_it_looks_for(code):
    assert len(breaches(code)) == 1


def test_no_code_of_the_project_could_run_what_is_in_a_file():
    files = [
        path
        for folder in ('mmhiper', 'tools', 'docs')
        for path in (REPO / folder).rglob('*.py')
        if '.mim' not in path.parts
    ]
    files += (REPO / 'tests').glob('*.py')
    found = {
        str(path.relative_to(REPO)): breaches(path.read_text())
        for path in files
        if path != Path(__file__)  # runs its payload, to see that it is one
        and path.name != 'test_docs.py'  # runs the code of the docs
    }

    assert len(found) > 130
    assert {path: each for path, each in found.items() if each} == {}


# -------------------------------------------------------- what a file can do
class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), 'w')


@pytest.fixture
def marker(tmp_path):
    """What a payload makes; it must not be there at the end."""
    path = tmp_path / 'was_run'
    yield path
    assert not path.exists()


@pytest.fixture
def evil(tmp_path, marker):
    """Writes a PyTorch file with a payload beside what is wanted."""

    def write(path: Path, zipped: bool = True, **content) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**content, 'more': Payload(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return path

    return write


def refusal(call, *args, **options) -> str:
    """What a reader says of a file with a payload: one line."""
    with pytest.raises(UserError) as error:
        call(*args, **options)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_the_payload_is_one(tmp_path):
    path, marker = tmp_path / 'evil.pt', tmp_path / 'was_run'
    torch.save(Payload(marker), path)
    torch.load(path, weights_only=False)

    assert marker.exists()


ROWS = torch.ones(1, 4)
EMBEDDINGS = {
    'diffusers.bin': {'<cat>': ROWS},
    'a1111.pt': dict(string_to_param={'*': ROWS}, name='cat'),
    'kohya.pt': dict(emb_params=ROWS),
    'original.pt': dict(string_to_param={'*': ROWS}),
    'mmagic.pth': dict(
        state_dict={'token_embedding.trainable_embeddings.<cat>': ROWS}
    ),
    'name.safetensors': {'<cat>': ROWS},
}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', EMBEDDINGS)
def test_an_embedding(tmp_path, evil, capsys, name, zipped):
    path = evil(tmp_path / name, zipped, **EMBEDDINGS[name])

    assert 'io.open' in refusal(read_token_file, path)
    for command in ('info', 'convert --info'):
        verb, *more = command.split()
        with pytest.raises(SystemExit) as exit_:
            main([verb, str(path), *more])
        assert exit_.value.code == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_pickle_that_is_no_pytorch_file(tmp_path, marker):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f'{protocol}.pt'
        path.write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
        refusal(read_token_file, path)
        refusal(read_checkpoint, path)


def test_a_checkpoint(tmp_path, evil, tiny_sd1):
    path = evil(tmp_path / 'iter_1.pth', state_dict={'a': ROWS}, meta={})

    for call in (read_checkpoint, check_resumable, judge.load_judge):
        assert 'io.open' in refusal(call, path)
    cfg = config(tmp_path, tiny_sd1)
    refusal(make_plan, cfg, None, str(path))
    refusal(load_editor, cfg, path)


@pytest.mark.parametrize('where', ['file', 'network'])
def test_what_a_run_starts_from(tmp_path, evil, tiny_sd1, where):
    path = evil(tmp_path / 'evil.pth', state_dict={'a': ROWS})
    cfg = config(tmp_path, tiny_sd1)
    # mmengine would fetch it, and unpickle it whole
    cfg.load_from = str(path) if where == 'file' else 'http://[::1]:9/a.pth'

    refusal(train, cfg)


@pytest.mark.parametrize('part', ['unet', 'vae', 'text_encoder'])
def test_a_part_of_a_backbone(tmp_path, evil, tiny_sd1, part):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    (old,) = (folder / part).glob('*.safetensors')
    old.unlink()
    stem = 'pytorch_model' if part == 'text_encoder' else old.stem
    evil(folder / part / f'{stem}.bin', weight=ROWS)

    assert f'{stem}.bin' in refusal(StableDiffusion, str(folder))


def test_a_single_file(tmp_path, evil, tiny_sd1):
    shutil.copy(tiny_sd1 / 'model_index.json', tmp_path)
    path = evil(tmp_path / 'model.ckpt', state_dict={'a': ROWS})

    assert 'model.ckpt' in refusal(StableDiffusion, str(path))


def test_the_index_beside_a_single_file_imports_nothing(
    tmp_path, marker, tiny_sd1, monkeypatch
):
    shutil.copytree(tiny_sd1, tmp_path, dirs_exist_ok=True)
    index = json.loads((tmp_path / 'model_index.json').read_text())
    index['vae'] = ['stranger', 'AutoencoderKL']
    (tmp_path / 'model_index.json').write_text(json.dumps(index))
    (tmp_path / 'stranger.py').write_text(f'open({str(marker)!r}, "w")')
    path = tmp_path / 'model.safetensors'
    weights = original_layout(tiny_sd1)
    save_file({k: w.contiguous() for k, w in weights.items()}, path)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert 'stranger' in refusal(StableDiffusion, str(path))
    assert 'stranger' not in sys.modules


@pytest.mark.parametrize('below', ['', 'image_encoder'])
def test_an_image_encoder(tmp_path, evil, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    shutil.copy(BUNDLED['mini-sd'] / 'image_encoder/config.json', folder)
    evil(folder / 'pytorch_model.bin', weight=ROWS)
    encoder = ImageEncoder(str(tmp_path))

    message = refusal(encoder.encode, torch.zeros(1, 3, 8, 8))
    assert 'pytorch_model.bin' in message


def test_a_clip_model(tmp_path, evil, tiny_sd1):
    evil(tmp_path / 'clip' / 'pytorch_model.bin', weight=ROWS)
    sd = StableDiffusion(str(tiny_sd1))

    refusal(ClipFeatures, sd, str(tmp_path / 'clip'))


def test_a_picture_starts_no_program(tmp_path, marker, monkeypatch):
    path = tmp_path / 'photo.png'
    Image.new('RGB', (4, 4)).save(path, 'EPS')
    program = tmp_path / 'gs'
    program.write_text(f'#!/bin/sh\ntouch {marker}\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), os.pathsep)
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None, raising=False)

    refusal(load_upright_image, path)
