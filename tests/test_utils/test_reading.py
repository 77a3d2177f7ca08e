"""What is in place of a file, and what is too large."""

import os

import pytest

from mmhiper.cli.info import facts_of
from mmhiper.datasets import load_upright_image
from mmhiper.io import (
    check_resumable,
    read_checkpoint,
    read_export,
    read_picture_record,
    read_token_file,
)
from mmhiper.io.case_table import read_cases
from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.reading import printable, reading, sha256
from mmhiper.utils.sheet import read_panels
from mmhiper.utils.text_files import read_text

READERS = [
    check_resumable,
    load_upright_image,
    read_cases,
    read_checkpoint,
    read_export,
    read_panels,
    read_picture_record,
    read_token_file,
]


@pytest.mark.parametrize('read', READERS)
def test_what_is_no_file(tmp_path, read):
    os.mkfifo(tmp_path / 'pipe.png')  # nobody writes to it: it would wait
    for path in (tmp_path / 'pipe.png', '/dev/zero', '/dev/tty'):
        with pytest.raises(FileError, match='is a pipe or a device'):
            read(path)
    with pytest.raises(FileError, match='is a folder'):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read(tmp_path / 'none')
    for name in ('x' * 300, 'a\0b'):
        with pytest.raises(UserError):
            read(tmp_path / name)


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / 'a').touch()

    with pytest.raises(MissingFileError):
        read_token_file(tmp_path / 'a' / 'b.pt')


def test_a_text_that_is_too_large(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    path.write_text('a {}\n' * 1000)
    monkeypatch.setenv('MMHIPER_MAX_TEXT_MEGABYTES', '0.004')
    with pytest.raises(
        FileError, match=r'at most 0\.004 MB.*set MMHIPER_MAX_TEXT_MEGABYTES'
    ):
        read_text(path, 'a list')

    monkeypatch.setenv('MMHIPER_MAX_TEXT_MEGABYTES', '1')
    assert len(read_text(path, 'a list')) == 5000


@pytest.mark.parametrize('value', ['', 'much', '0', '-1', 'nan'])
def test_a_limit_that_is_none(tmp_path, monkeypatch, value):
    (tmp_path / 'a.txt').touch()
    monkeypatch.setenv('MMHIPER_MAX_TEXT_MEGABYTES', value)

    with pytest.raises(UserError, match='must be a number above 0'):
        read_text(tmp_path / 'a.txt', 'a list')


def test_a_sparse_file_is_not_read(tmp_path):
    with (tmp_path / 'a.txt').open('wb') as file:
        file.truncate(1 << 40)

    with pytest.raises(FileError, match='16 MB'):
        read_text(tmp_path / 'a.txt', 'a list')


def test_our_own_mistakes_keep_their_tracebacks():
    with pytest.raises(ZeroDivisionError), reading('a', 'b', 'c', OSError):
        raise ZeroDivisionError
    for error in (MemoryError, KeyboardInterrupt):
        with pytest.raises(error), reading('a', 'is no b', 'c'):
            raise error


def test_a_message_is_one_line_that_a_terminal_can_show():
    with (
        pytest.raises(FileError) as error,
        reading('a.txt', 'is no list', 'Mend it.'),
    ):
        raise RuntimeError('bad \x1b[2J\nsecond line')

    assert str(error.value) == "'a.txt' is no list: bad \\x1b[2J. Mend it."


def test_what_a_file_says_cannot_steer_a_terminal():
    assert printable('ein Hündchen <cat>') == 'ein Hündchen <cat>'
    assert printable('\x1b]0;me\x07\n\ud800') == r'\x1b]0;me\x07\n\ud800'


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')

    assert sha256(tmp_path / 'a').startswith('ba7816bf')


def test_a_terminal_is_not_steered_by_info(tmp_path, capsys):
    from PIL import Image

    from mmhiper.cli import main
    from mmhiper.io import write_picture

    path = tmp_path / 'a.png'
    write_picture(path, Image.new('RGB', (2, 2)), dict(prompt='\x1b[2J\udcff'))
    assert dict(facts_of(path))['prompt'] == '\x1b[2J\udcff'
    assert main(['info', str(path)]) == 0

    assert '\x1b' not in capsys.readouterr().out
