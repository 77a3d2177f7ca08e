"""What a file is, told by its first bytes, where something else was wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = 512
_AGAIN = 'Get the file itself again.'
_UNPACK = 'Unpack it, and name a file in it.'


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Attributes:
        name: With its article, for a sentence.
        remedy: What to do where another kind was wanted, a sentence.
        is_text: Whether a person could have written it as text.
        is_picture: Whether people see a picture in it, whoever can decode it.
    """

    name: str
    remedy: str = _AGAIN
    is_text: bool = False
    is_picture: bool = False


EMPTY = FileKind('an empty file, without a single byte')
# Of pictures that Pillow reads by a plugin, or only if it was built so.
HEIC = FileKind(
    'a HEIC picture, as of iPhones',
    'Install what reads it ("pip install pillow-heif"), or save it as PNG or '
    'JPEG.',
    is_picture=True,
)
AVIF = FileKind(
    'an AVIF picture',
    'Install what reads it ("pip install -U pillow", 11.3 or newer), or save '
    'it as PNG or JPEG.',
    is_picture=True,
)
JPEG_XL = FileKind(
    'a JPEG XL picture',
    'It is not read: save it as PNG or JPEG.',
    is_picture=True,
)
ZIP = FileKind('a ZIP archive', _UNPACK)
_VIDEO = FileKind('a video', 'Take a picture out of it, as PNG or JPEG.')

# By what a file begins with; the longer one first where two agree.
_SIGNATURES: tuple[tuple[bytes, FileKind], ...] = (
    (
        b'version https://git-lfs.github.com/',
        FileKind(
            'a pointer of Git LFS, which stands for a large file',
            'Fetch that by "git lfs pull", or download it by itself.',
        ),
    ),
    (
        b'/annex/objects/',
        FileKind(
            'a pointer of git-annex, which stands for a large file',
            'Fetch that by "git annex get".',
        ),
    ),
    (
        b'\x89PNG\r\n\x1a\n',
        FileKind(
            'a PNG picture',
            'Words that the A1111 web UI has hidden in a picture are not '
            'read: take its .pt file.',
            is_picture=True,
        ),
    ),
    (b'\xff\xd8\xff', FileKind('a JPEG picture', is_picture=True)),
    (b'GIF8', FileKind('a GIF picture', is_picture=True)),
    (b'II*\0', FileKind('a TIFF picture', is_picture=True)),
    (b'MM\0*', FileKind('a TIFF picture', is_picture=True)),
    (b'8BPS', FileKind('a Photoshop file', is_picture=True)),
    (b'\xff\x0a', JPEG_XL),
    (b'\0\0\0\x0cJXL \r\n\x87\n', JPEG_XL),
    (b'\x1aE\xdf\xa3', _VIDEO),
    (b'%PDF', FileKind('a PDF document')),
    (b'{\\rtf', FileKind('an RTF document', 'Save it as plain text.')),
    (b'PK\x03\x04', ZIP),
    (b'PK\x05\x06', FileKind('a ZIP archive with nothing in it')),
    (b'\x1f\x8b', FileKind('a gzip archive', _UNPACK)),
    (b'BZh', FileKind('a bzip2 archive', _UNPACK)),
    (b'\xfd7zXZ\0', FileKind('an xz archive', _UNPACK)),
    (b'7z\xbc\xaf\x27\x1c', FileKind('a 7z archive', _UNPACK)),
    (b'Rar!', FileKind('a RAR archive', _UNPACK)),
    (
        b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1',
        FileKind('an old Office document', 'Save it as text or CSV.'),
    ),
    (b'GGUF', FileKind('a GGUF model, whose weights are rounded')),
    (
        b'\x93NUMPY',
        FileKind(
            'a NumPy array',
            "Save it by torch.save({'<word>': torch.from_numpy(rows)}, "
            "'word.bin').",
        ),
    ),
    (b'\x89HDF\r\n\x1a\n', FileKind('an HDF5 file')),
)
_HTML = FileKind(
    'a web page (HTML), saved in place of a file',
    'Download the file itself: by its "download" or "raw" link, signed in '
    'where that is needed.',
)
_XML = FileKind('an XML document', is_text=True)
SVG = FileKind(
    'an SVG drawing', 'Save it as PNG.', is_text=True, is_picture=True
)
_JSON = FileKind('a JSON text', is_text=True)
TEXT = FileKind('a text', is_text=True)


def kind_of(path: str | Path) -> FileKind | None:
    """Tells what a file is.

    Args:
        path: A file that exists.

    Returns:
        None for all that it does not know, safetensors and pickles of PyTorch
        among them.
    """
    with open(path, 'rb') as file:
        return kind_of_bytes(file.read(_HEAD))


def kind_of_bytes(head: bytes) -> FileKind | None:
    """Tells what a file is that begins with some bytes.

    Args:
        head: The first 512, or all of a shorter file.

    Returns:
        As of :func:`kind_of`.
    """
    if not head:
        return EMPTY
    for start, kind in _SIGNATURES:
        if head.startswith(start):
            return kind
    if head[:4] == b'RIFF' and head[8:12] in (b'WEBP', b'AVI '):
        webp = FileKind('a WebP picture', is_picture=True)
        return webp if head[8:12] == b'WEBP' else _VIDEO
    if head[4:8] == b'ftyp':
        return _kind_of_brands(head)
    if head[257:262] == b'ustar':
        return FileKind('a tar archive', _UNPACK)
    return _kind_of_text(head)


def _kind_of_brands(head: bytes) -> FileKind | None:
    """What an ISO media file is, by the brands in its first box."""
    end = min(int.from_bytes(head[:4], 'big'), len(head))
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, end, 4)}
    if brands & {b'avif', b'avis'}:
        return AVIF
    heic = {b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'heif'}
    if brands & (heic | {b'mif1', b'msf1'}):
        return HEIC
    return _VIDEO


def _kind_of_text(head: bytes) -> FileKind | None:
    """What a text is, of whatever encoding; None for bytes."""
    try:
        text = head.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # no letter that the head has cut
            return None
        text = head[: error.start].decode('utf-8-sig')
    if re.search(r'[\0-\x08\x0e-\x1a\x1c-\x1f]', text):
        return None
    start = text.lstrip().lower()
    if re.match(r'<!doctype html|<html|<head|<body', start):
        return _HTML
    if re.match(r'<\?xml|<svg|<!doctype svg', start):
        return SVG if '<svg' in start or 'svg' in start[:200] else _XML
    if re.match(r'\{\s*("|\}|$)|\[\s*(\{|\[|"|\]|$|[-\d])', start):
        return _JSON
    return TEXT


def wrong_kind(path: str | Path, wanted: str) -> str | None:
    """Says that a file is of a kind that was not wanted.

    Args:
        path: A file that exists.
        wanted: What it should be, with its article.

    Returns:
        A sentence and a remedy; None where the kind is not known.
    """
    kind = kind_of(path)
    if kind is None:
        return None
    return f'Wanted {wanted}, but {str(path)!r} is {kind.name}. {kind.remedy}'
