"""What strangers get of a run, and what they never do."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from PIL import Image
from runs import config
from safetensors import safe_open

from mmhiper.apis import load_editor
from mmhiper.engine.launch import train
from mmhiper.engine.model_card import MARK
from mmhiper.io import read_export, write_picture
from mmhiper.publishing import (
    files_to_publish,
    folder_of,
    to_folder,
    without_paths,
)
from mmhiper.utils.sheet import read_panels


@pytest.fixture(scope='module')
def trained(tiny_sd1, tmp_path_factory) -> Path:
    """The work dir of a run of two iterations, of a photo somewhere."""
    folder = tmp_path_factory.mktemp('home')
    cfg = config(folder, tiny_sd1, previews=True)
    cfg.modelspec.author = 'A. Painter'
    train(cfg)
    return Path(cfg.work_dir)


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(trained, tmp_path / 'run'))


def all_text(files: dict[str, bytes]) -> str:
    """All bytes as letters, so that any path in them would be found."""
    return '\n'.join(content.decode('latin-1') for content in files.values())


# ------------------------------------------------------------- what is chosen
def test_strangers_get_what_they_need_and_nothing_else(run):
    files = files_to_publish(run)

    assert list(files) == [
        'dog.py',
        'README.md',
        'iter_2.safetensors',
        'previews/iter_000002.png',
        'loss.png',
    ]
    card = files['README.md'].decode()
    for link in re.findall(r'!\[.*?\]\((.*?)\)', card):
        assert link in files
    assert MARK in card and 'iter_2.safetensors' in card


def test_no_path_of_this_machine_is_told(run, tiny_sd1, trained):
    kept = (run / 'dog.py').read_text()
    assert str(tiny_sd1) in kept and str(trained) in kept

    text = all_text(files_to_publish(run))

    # not the folders of pictures, models and results either
    for place in (tiny_sd1.parent, trained.parent, run, Path.home()):
        assert str(place) not in text
    cfg = Config.fromstring(files_to_publish(run)['dog.py'].decode(), '.py')
    assert cfg.train_dataloader.dataset.img == 'image.png'
    assert cfg.model.sd.pretrained == tiny_sd1.name
    assert cfg.model.source_text == 'a standing dog'
    assert (run / 'dog.py').read_text() == kept


def test_the_photo_is_sent_only_if_asked_for(run):
    name = 'previews/iter_000002.png'
    source, *drawn = [panel for _, panel in read_panels(run / name)]

    def has(content: bytes, panel: Image.Image) -> bool:
        """Whether a picture has another in it, pixel by pixel."""
        with Image.open(io.BytesIO(content)) as picture:
            sheet = np.asarray(picture.convert('RGB'))
        wanted = np.asarray(panel)
        height, width = wanted.shape[:2]
        corners = np.argwhere((sheet == wanted[0, 0]).all(-1))
        return any(
            np.array_equal(sheet[y : y + height, x : x + width], wanted)
            for y, x in corners
        )

    without = files_to_publish(run)[name]
    with_photo = files_to_publish(run, with_photo=True)
    assert all(has(without, panel) for panel in drawn)
    assert not has(without, source)
    assert has(with_photo[name], source)
    assert with_photo[name] == (run / name).read_bytes()


def test_what_is_sent_can_be_drawn_with(run, tiny_sd1, tmp_path):
    out = tmp_path / 'out'
    to_folder(files_to_publish(run), out, run)

    file = out / 'iter_2.safetensors'
    editor = load_editor(file, device='cpu', backbone=str(tiny_sd1))
    checkpoint = torch.load(run / 'iter_2.pth', weights_only=True)
    state = checkpoint['state_dict']
    for name, tensor in editor.state_dict().items():
        assert torch.equal(tensor, state[name])
    record = read_export(file)[1]
    assert record['backbone'] == tiny_sd1.name
    assert (record['step'], record['seed']) == (2, 200000)


def test_what_the_user_says_is_in_file_and_card(run):
    files = files_to_publish(run, dict(license='cc0-1.0', title='My dog'))
    card = files['README.md'].decode()

    front = yaml.safe_load(card.split('---')[1])
    assert front['license'] == 'cc0-1.0' and '# My dog' in card
    path = run / 'sent.safetensors'
    path.write_bytes(files['iter_2.safetensors'])
    with safe_open(path, framework='pt') as file:
        metadata = file.metadata()
    assert metadata['modelspec.license'] == 'cc0-1.0'
    assert metadata['modelspec.author'] == 'A. Painter'


def test_pictures_of_an_edit_lose_their_records(run):
    made = dict(prompt='a cat', backbone='/home/me/models/sd')
    write_picture(run / '000.png', Image.new('RGB', (8, 8)), dict(photo='x'))
    write_picture(run / '001.png', Image.new('RGB', (8, 8)), made)
    (run / '002.png').write_bytes(b'broken')
    (run / '003.png').symlink_to(run / '001.png')

    files = files_to_publish(run)

    assert [name for name in files if name[0] == '0'] == ['001.png']
    with Image.open(io.BytesIO(files['001.png'])) as picture:
        assert not picture.info
    assert '![001](001.png)' in files['README.md'].decode()


def test_a_page_of_the_user_is_sent_as_it_is(run):
    (run / 'README.md').write_text('# Mine\nsee /data\n')
    assert files_to_publish(run)['README.md'] == b'# Mine\nsee /data\n'

    (run / 'README.md').write_text('from /home/me/photos\n')
    with pytest.raises(ValueError, match=r"README.md.*'/home/me'.*Take it"):
        files_to_publish(run)


def test_a_page_that_is_a_link_is_not_followed(run, tmp_path):
    (tmp_path / 'private.md').write_text('a secret')
    (run / 'README.md').unlink()
    (run / 'README.md').symlink_to(tmp_path / 'private.md')
    assert b'a secret' not in files_to_publish(run)['README.md']


def test_a_config_that_tells_more_is_refused(run):
    path = run / 'dog.py'
    path.write_text(path.read_text() + "\nx = 'see /home/me/notes'\n")

    with pytest.raises(ValueError, match=r"'dog\.py' would tell"):
        files_to_publish(run)


@pytest.mark.parametrize(
    ('written', 'sent'),
    [
        ("img='/home/me/x y/it\\'s.png'", "img='it\\'s.png'"),
        ('img="C:\\\\Users\\\\me\\\\a.png"', 'img="a.png"'),
        ("l=['../a/b.png', '~/c']", "l=['b.png', 'c']"),
        ("p='a dog / a cat', u='https://x/y'",) * 2,
        ("img='data/dog.png', s='/'",) * 2,
        ('work_dir: /home/me/run\n- ~/a/b', 'work_dir: run\n- b'),
    ],
)
def test_paths_in_a_config_become_names(run, written, sent):
    (run / 'dog.py').write_text(written)

    assert files_to_publish(run)['dog.py'].decode() == sent


def test_paths_in_plain_data():
    data = dict(a=['/x/y', 3, dict(b='~/z')], c='a/b', d='either / or')

    assert without_paths(data) == dict(
        a=['y', 3, dict(b='z')], c='a/b', d='either / or'
    )


# ------------------------------------------------------------------- where to
@pytest.mark.parametrize(
    ('target', 'folder'),
    [
        ('me/my-dog', None),
        ('./dog', Path('dog')),
        ('/srv/dog', Path('/srv/dog')),
        ('file:///srv/my%20dog', Path('/srv/my dog')),
        ('a/b/c', Path('a/b/c')),
        ('~/dog', Path.home() / 'dog'),
        ('..', Path('..')),
    ],
)
def test_targets(target, folder):
    assert folder_of(target) == folder


@pytest.mark.parametrize(
    'target',
    [
        'dog',
        'me/',
        '-a/b',
        'a--b/c',
        'a b/c',
        'me/x.git',
        f'me/{"x" * 95}',
        '',
    ],
)
def test_what_is_no_target(target):
    with pytest.raises(ValueError, match='Wanted a repository, OWNER/NAME'):
        folder_of(target)


def test_a_folder_keeps_what_is_the_users(run, tmp_path):
    files = files_to_publish(run)
    out = tmp_path / 'out'
    to_folder(files, out, run)
    assert {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob('*')
        if path.is_file()
    } == files
    to_folder(files, out, run)  # once more

    (out / 'README.md').write_text('# Mine')
    with pytest.raises(ValueError, match='is a page of yours'):
        to_folder(files, out, run)
    with pytest.raises(ValueError, match='is the work_dir itself'):
        to_folder(files, run / '.', run)


def test_nothing_to_send(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no work_dir '.*none'"):
        files_to_publish(tmp_path / 'none')
    (run / 'iter_2.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='no export beside'):
        files_to_publish(run)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='has no checkpoint'):
        files_to_publish(tmp_path / 'empty')
