"""Reading text files that people wrote, with the editors of any system."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from mmhiper.utils.errors import FileError
from mmhiper.utils.file_kinds import kind_of_bytes
from mmhiper.utils.reading import check_file, limit, printable, reading

# Of tables and lists of templates: a thousand times what people write.
MAX_TEXT_MEGABYTES = 16
# What a file begins with that says its encoding; the longer ones first.
_MARKS = (
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_LINE_END = re.compile(r'\r\n|\r|\n')
_SHOWN = 30  # letters on each side of one that cannot be read
_REMEDY = 'Save it as text in UTF-8.'


def read_text(path: str | Path, wanted: str) -> str:
    """Reads a text file that a person wrote.

    UTF-8, and UTF-16 and UTF-32 where a mark says so; UTF-16 without one
    where the zero bytes of its plain letters can mean nothing else. Of the
    8-bit encodings any could be meant, so none is guessed: a wrong guess
    would train on other letters than were written, and say nothing.

    Args:
        wanted: What it should be, with its article.

    Returns:
        Its text without marks, with the line ends as they are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text, of an encoding that cannot be told, or
            too large.
    """
    path = check_file(path, wanted)
    most = limit('MMHIPER_MAX_TEXT_MEGABYTES', MAX_TEXT_MEGABYTES)
    size = path.stat().st_size
    if size > most * 1e6:
        raise FileError(
            f'Wanted {wanted}, but {str(path)!r} has {size / 1e6:.0f} MB; at '
            f'most {most:g} MB are read. Divide it, or set '
            'MMHIPER_MAX_TEXT_MEGABYTES.'
        )
    with reading(path, f'is not {wanted}', _REMEDY, OSError):
        data = path.read_bytes()
    kind = kind_of_bytes(data[:512])
    if data and kind is not None and not kind.is_text:
        raise FileError(
            f'Wanted {wanted}, but {str(path)!r} is {kind.name}. {_REMEDY}'
        )
    text = _decode(data, path, wanted)
    if '\0' in text:
        line = _line_of(text[: text.index('\0')])
        raise FileError(
            f'{str(path)!r} is not {wanted} in UTF-8: line {line} has zero '
            f'bytes. {_REMEDY}'
        )
    # also between files that were joined
    return text.replace('\ufeff', '')


def lines_of(text: str) -> list[str]:
    """The lines of a text, whichever system ended them.

    Args:
        text: With line ends of Unix, Windows or the old Macintosh.

    Returns:
        Without their ends. Other than ``str.splitlines`` it leaves alone what
        looks like a line end to no editor.
    """
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def _decode(data: bytes, path: Path, wanted: str) -> str:
    """The text of a file, where its encoding can be told."""
    marks = (pair for pair in _MARKS if data.startswith(pair[0]))
    mark, encoding = next(marks, None) or (b'', _encoding_of(data))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != 'utf-8':
            raise FileError(
                f'{str(path)!r} is not {wanted}: it is marked as '
                f'{encoding.upper()}, but does not go on so at byte '
                f'{error.start + len(mark)} (cut short?). {_REMEDY}'
            ) from error
    raise FileError(_not_utf8(data[len(mark) :], path, wanted))


def _encoding_of(data: bytes) -> str:
    """UTF-8, or UTF-16 where a text can be nothing else."""
    # In UTF-16 every second byte of plain letters is zero, and in no other
    # encoding of texts is any.
    if len(data) % 2 == 0:
        first, second = data[::2], data[1::2]
        for zeros, others, encoding in (
            (second, first, 'utf-16-le'),
            (first, second, 'utf-16-be'),
        ):
            if zeros.count(0) * 2 > len(zeros) and not others.count(0):
                return encoding
    return 'utf-8'


def _not_utf8(data: bytes, path: Path, wanted: str) -> str:
    """Says where a file is not UTF-8, and what that may mean."""
    try:
        data.decode('utf-8')
    except UnicodeDecodeError as error:
        start = error.start
    # every byte is a letter of it, so the places of letters are kept
    plain = data.decode('latin-1')
    line = _line_of(plain[:start])
    before = _LINE_END.split(data[:start].decode('utf-8'))[-1][-_SHOWN:]
    letter = data[start : start + 1].decode('cp1252', 'replace')
    after = _LINE_END.split(data[start + 1 :].decode('cp1252', 'replace'))[0]
    shown = printable(f'{before}{letter}{after[:_SHOWN]}')
    return (
        f'{str(path)!r} is not {wanted} in UTF-8: line {line} has the byte '
        f'0x{data[start]:02X}, which is a letter in many other encodings (in '
        f'Windows-1252 or Latin-1 it would read {shown!r}). Save it as UTF-8, '
        'in an editor or by "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW".'
    )


def _line_of(before: str) -> int:
    """The number of a line, of all that is before a place in it."""
    return len(_LINE_END.split(before))
