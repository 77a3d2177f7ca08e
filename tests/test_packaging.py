"""What is installed: a wheel that works with no checkout beside it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from runs import REPO

from mmhiper.utils.shipped import (
    config_path,
    list_configs,
    or_shipped,
    shipped,
)

BUILT_FROM = (
    'LICENSE',
    'MANIFEST.in',
    'README.md',
    'configs',
    'data',
    'mmhiper',
    'model-index.yml',
    'pyproject.toml',
    'requirements',
    'setup.py',
    'tools',
)


def python(*words: object, cwd: Path, **env: str) -> str:
    """Runs Python away from the checkout; returns what it prints."""
    result = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': '', 'OMP_NUM_THREADS': '1', **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Builds an 'sdist' or a 'wheel' with the project's own backend."""
    target.mkdir()
    code = (
        f'import setuptools.build_meta as b; b.build_{kind}({str(target)!r})'
    )
    python('-c', code, cwd=source)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel, built from the sdist as an index would hold it."""
    folder = tmp_path_factory.mktemp('build')
    source = folder / 'source'
    source.mkdir()
    for name in BUILT_FROM:
        path = REPO / name
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, source / name)
    sdist = build('sdist', source, folder / 'sdist')
    shutil.unpack_archive(sdist, folder / 'unpacked')
    (source,) = (folder / 'unpacked').iterdir()
    return build('wheel', source, folder / 'wheel')


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder into which pip has installed the wheel, alone."""
    folder = tmp_path_factory.mktemp('site')
    options = ['--no-deps', '--no-index', '--quiet', '--target', folder]
    python('-m', 'pip', 'install', *options, wheel, cwd=folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_the_wheel_holds_the_package_and_what_mim_looks_for(wheel):
    expected = {f'mmhiper/{name}' for name in files_below(REPO / 'mmhiper')}
    for name in ('configs', 'data', 'tools'):
        expected |= {
            f'mmhiper/.mim/{name}/{file}' for file in files_below(REPO / name)
        }
    expected.add('mmhiper/.mim/model-index.yml')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert {name for name in names if '.dist-info/' not in name} == expected


def test_python_from_anywhere(site, tmp_path):
    code = """
from pathlib import Path
import mmhiper
from mmengine.config import Config
from mmhiper.apis import load_editor
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.shipped import config_path, list_configs

print(Path(mmhiper.__file__).parents[1])
editor = load_editor('hiper/dog', device='cpu')
print(editor.sd.backbone)
size = editor.infer('a cat', num_inference_steps=1, show_progress=False)
print(size['samples'][0].size)
register_all_modules()
for name in list_configs():
    if name != 'hiper/person':  # the user's own photo
        cfg = Config.fromfile(config_path(name))
        print(name, len(DATASETS.build(cfg.train_dataloader.dataset)) > 0)
"""
    lines = python(
        '-c', code, cwd=tmp_path, PYTHONPATH=str(site), CUDA_VISIBLE_DEVICES=''
    ).splitlines()
    lines = [line for line in lines if 'No CUDA device' not in line]

    assert lines[:3] == [str(site), 'mini-sd', '(128, 128)']
    others = [name for name in list_configs() if name != 'hiper/person']
    assert lines[3:] == [f'{name} True' for name in others]


def test_the_tools_from_anywhere(site, tmp_path):
    """Trains on the bundled model and draws with the closing words."""
    tools = site / 'mmhiper' / '.mim' / 'tools'
    env = dict(PYTHONPATH=str(site), CUDA_VISIBLE_DEVICES='')
    words = [tools / 'train.py', 'hiper/dog', '--cfg-options']
    printed = python(
        *words, 'train_cfg.max_iters=2', cwd=tmp_path, **env
    ).splitlines()

    checkpoint = tmp_path / 'work_dirs' / 'dog' / 'iter_2.pth'
    assert checkpoint.is_file()
    words = [tools / 'infer.py', 'hiper/dog', checkpoint, '--num-images', 1]
    words += ['--prompt', 'a sitting dog', '--out-dir', 'drawn']
    python(*words, cwd=tmp_path, **env)
    with Image.open(tmp_path / 'drawn' / '000.png') as picture:
        assert picture.size == (128, 128)
    assert printed[-1].strip().startswith(('python', 'mmhiper'))


# ------------------------------------------------------------ names of configs
def test_configs_by_name():
    assert 'hiper/dog' in list_configs()
    assert not any('_base_' in name for name in list_configs())
    dog = REPO / 'configs' / 'hiper' / 'dog.py'
    for name in ('hiper/dog', 'hiper/dog.py', 'configs/hiper/dog.py', dog):
        assert config_path(name).resolve() == dog


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('hiper/dog.py', 'data/dog.png'):
        path = tmp_path / name
        path.parent.mkdir()
        path.touch()

    assert config_path('hiper/dog.py').absolute() == tmp_path / 'hiper/dog.py'
    assert or_shipped('data/dog.png').absolute() == tmp_path / 'data/dog.png'


def test_a_wrong_name_is_answered_with_the_right_ones():
    with pytest.raises(FileNotFoundError) as error:
        config_path('hiper/dgo')
    assert "'hiper/dgo'" in str(error.value)
    assert ', '.join(list_configs()) in str(error.value)


def test_pictures_of_the_project_are_found_from_anywhere(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    assert or_shipped('data/dog.png') == shipped('data/dog.png')
    assert or_shipped('data/dog.png').is_file()
    # what is not there, or no picture of ours, stays the user's mistake
    for name in ('data/none.png', 'README.md'):
        assert or_shipped(name) == Path(name)
