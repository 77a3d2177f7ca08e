"""The pictures of the documents: what there is, and what draws it."""

import re
import shlex
import sys

import pytest
from runs import REPO

from tools import draw_docs

IMAGES = REPO / 'docs' / 'images'


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """The tool, with folders of its own."""
    (tmp_path / 'images').mkdir()
    monkeypatch.setattr(draw_docs, 'IMAGES', tmp_path / 'images')

    def call(*names: str) -> int:
        words = ['draw_docs.py', '--work-dir', str(tmp_path / 'work')]
        monkeypatch.setattr(sys, 'argv', [*words, '--only', *names])
        return draw_docs.main()

    return call


def shown() -> set[str]:
    """The pictures that a page of the project shows."""
    pages = [REPO / 'README.md']
    for folder in ('docs', 'configs', 'mmhiper'):
        pages += (REPO / folder).rglob('*.md')
    texts = [page.read_text() for page in pages]
    return set(re.findall(r'\(\S*images/([\w.]+)\)', '\n'.join(texts)))


def test_every_picture_is_drawn_by_a_command_and_shown():
    names = {path.name for path in IMAGES.iterdir()}
    assert names == set(draw_docs.PICTURES) == shown()


def test_the_readme_begins_with_a_sheet_and_the_command_that_makes_it():
    readme = (REPO / 'README.md').read_text()
    picture, block = re.search(
        r'images/([\w.]+)\).*?```bash\n(.*?)```', readme, re.DOTALL
    ).groups()
    command = draw_docs.PICTURES[picture].command
    assert 'data/dog.png' in command
    # the shell reads a line that ends so together with the next one
    assert shlex.split(block.replace('\\\n', ' ')) == shlex.split(command)
    assert readme.index('```') < readme.index('\n## ')


def test_what_is_drawn_is_not_drawn_again(draw, tmp_path):
    assert draw('method.svg') == 0
    image = tmp_path / 'images' / 'method.svg'
    assert image.read_text().lstrip().startswith('<?xml')

    (made,) = tmp_path.glob('work/method-*/method.svg')
    made.write_text('as it was')
    assert draw('method.svg') == 0
    assert image.read_text() == 'as it was'

    (made.parent / 'drawn').unlink()  # it was stopped
    assert draw('method.svg') == 0
    assert image.read_text() != 'as it was'


def test_other_code_draws_anew(draw, tmp_path, monkeypatch):
    assert draw('method.svg') == 0
    monkeypatch.setattr(draw_docs, 'hash_code', lambda: 'other')
    assert draw('method.svg') == 0
    assert len(list(tmp_path.glob('work/method-*/drawn'))) == 2


def test_a_command_that_fails_is_told_and_the_rest_is_drawn(
    draw, tmp_path, monkeypatch, capfd
):
    broken = draw_docs.Picture('python docs/none.py', 'none.png')
    monkeypatch.setitem(draw_docs.PICTURES, 'none.jpg', broken)
    assert draw('none.jpg', 'method.svg') == 1
    assert (tmp_path / 'images' / 'method.svg').is_file()
    assert 'Failed:\nnone.jpg: ' in capfd.readouterr().out
