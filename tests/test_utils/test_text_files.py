"""Text files of any system."""

import codecs

import pytest

from mmhiper.utils.errors import FileError
from mmhiper.utils.text_files import lines_of, read_text

TEXT = 'a photo of a {}\r\nein Hündchen „{}“ 猫\rlast'


@pytest.mark.parametrize(
    ('mark', 'encoding'),
    [
        (b'', 'utf-8'),
        (codecs.BOM_UTF8, 'utf-8'),
        (codecs.BOM_UTF16_LE, 'utf-16-le'),
        (codecs.BOM_UTF16_BE, 'utf-16-be'),
        (codecs.BOM_UTF32_LE, 'utf-32-le'),
        (codecs.BOM_UTF32_BE, 'utf-32-be'),
        (b'', 'utf-16-le'),
        (b'', 'utf-16-be'),
    ],
)
def test_encodings_that_can_be_told(tmp_path, mark, encoding):
    path = tmp_path / 'a.txt'
    path.write_bytes(mark + TEXT.encode(encoding))

    assert read_text(path, 'a list') == TEXT
    path.write_bytes(mark)
    assert read_text(path, 'a list') == ''


def test_files_with_marks_that_were_joined(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes(2 * (codecs.BOM_UTF8 + b'a {}\n'))

    assert read_text(path, 'a list') == 'a {}\na {}\n'


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        ('a\r\nein Hündchen'.encode('cp1252'), "line 2 .*0xFC.*'ein Hündch"),
        ('a\rb\rein Hündchen'.encode('latin-1'), 'line 3 .*0xFC.*iconv'),
        ('a\n„Hund“\nb'.encode('cp1252'), "line 2 .*0x84.*'„Hund“'"),
        ('собака {}'.encode('cp1251'), 'line 1 .*many other encodings'),
        ('犬の写真 {}'.encode('shift-jis'), 'line 1 .*many other encodings'),
        (b'a {}\n\xe2\x82', 'line 2 '),  # cut in a letter
        (b'a {}\nb\0 {}', 'line 2 has zero bytes'),
        (b'\0' * 64, 'line 1 has zero bytes'),
        (codecs.BOM_UTF16_LE + b'a\0b', 'marked as UTF-16-LE.*byte 4'),
        (codecs.BOM_UTF16_BE + b'\xd8\0\0a', 'marked as UTF-16-BE'),
        (b'\x89PNG\r\n\x1a\n', 'is a PNG picture'),
        (b'PK\x03\x04', 'is a ZIP archive'),
        (b'<!DOCTYPE html>\n<title>404', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'pointer of Git LF'),
        (b'{\\rtf1 a}', 'RTF'),
    ],
)
def test_what_cannot_be_told_is_said_with_its_line(tmp_path, data, words):
    path = tmp_path / 'a.txt'
    path.write_bytes(data)

    with pytest.raises(FileError, match=words) as error:
        read_text(path, 'a list')

    assert str(path) in str(error.value) and 'in UTF-8' in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_lines_end_as_editors_see_it():
    assert lines_of('a\r\nb\rc\nd') == ['a', 'b', 'c', 'd']
    assert lines_of('a\n\nb\n') == ['a', '', 'b']
    assert lines_of('a\u2028b\x0cc\x85') == ['a\u2028b\x0cc\x85']
    assert lines_of('') == []
