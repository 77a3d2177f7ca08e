"""Opening picture files, whatever they are."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.file_kinds import AVIF, HEIC, JPEG_XL, SVG, kind_of
from mmhiper.utils.reading import check_file, limit, reason_of

# In millions: what cameras take. A pixel costs 10 to 16 bytes while it is
# read (as stored, over a plain ground, as RGB), so this is 1.6 GB at most.
MAX_MEGAPIXELS = 100
# To draw these Pillow starts another program, or hands them to the system:
# their content is code.
_PROGRAMS = ('EPS', 'WMF')
# What decodes the kinds that not every Pillow does, by its name there.
_DECODERS = {HEIC: 'HEIF', AVIF: 'AVIF', JPEG_XL: 'JXL', SVG: 'SVG'}


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Opens a picture file; what Pillow raises is told in one line.

    Nothing but what Pillow does with the file belongs inside.

    Yields:
        Not decoded yet.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture that Pillow decodes, is damaged, or
            has more pixels than are read.
    """
    path = check_file(path, 'an image file')
    most = limit('MMHIPER_MAX_MEGAPIXELS', MAX_MEGAPIXELS)
    _allow(most)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about odd files; errors stay
            with Image.open(path, formats=_formats()) as image:
                megapixels = image.width * image.height / 1e6
                if megapixels > most:
                    raise FileError(_too_large(path, most, image.size))
                yield image
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise FileError(_too_large(path, most)) from None
    except UnidentifiedImageError:
        raise FileError(_not_read(path)) from None
    except Exception as error:  # decoders raise nearly anything
        raise FileError(
            f'The image {str(path)!r} cannot be read completely: '
            f'{reason_of(error)}. {_remedy_for(error)}'
        ) from error


def _not_read(path: Path) -> str:
    """Says what a file is that no decoder takes for a picture."""
    kind = kind_of(path)
    if kind is None:
        return (
            f'{str(path)!r} is not an image that Pillow can read '
            f'({path.stat().st_size} bytes). Save it as PNG or JPEG.'
        )
    decoder = _DECODERS.get(kind)
    if not kind.is_picture or (decoder and decoder not in Image.OPEN):
        return (
            f'{str(path)!r} is not an image that Pillow can read: it is '
            f'{kind.name}. {kind.remedy}'
        )
    return (
        f'{str(path)!r} is {kind.name}, but not one that Pillow can read: its '
        'header is damaged, names a width or height of 0 or beyond what is '
        'decoded, or a variant that is not known. Save it anew as an ordinary '
        'PNG or JPEG.'
    )


def _remedy_for(error: Exception) -> str:
    """What to do about an image of which a decoder gave up."""
    if re.search('too large|too big|limit|exceed', str(error), re.IGNORECASE):
        return (
            'Something in it is larger than what is decoded: scale it down, '
            'and save it anew without its other contents.'
        )
    return (
        'The file is damaged, truncated or not readable for this user; get a '
        'fresh copy or save it anew.'
    )


def is_picture(path: Path) -> bool:
    """Whether people call it a picture, damaged ones and HEIC too.

    So one that cannot be read is an error, and not passed over.

    Args:
        path: An ordinary file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path, formats=_formats()):
                return True
    except UnidentifiedImageError:
        kind = kind_of(path)
        return kind is not None and kind.is_picture
    except MemoryError:
        raise
    except Exception:  # it began to read one
        return True


def _formats() -> list[str]:
    """What Pillow decodes by itself, with what plugins have added."""
    Image.init()
    _add_heif()
    return [name for name in Image.OPEN if name not in _PROGRAMS]


@functools.cache
def _add_heif() -> None:
    """Has pictures of iPhones decoded, where there is what does."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _allow(megapixels: float) -> None:
    """Raises Pillow's own limit to one that the user has raised."""
    own = Image.MAX_IMAGE_PIXELS
    if own is not None and megapixels > MAX_MEGAPIXELS:
        Image.MAX_IMAGE_PIXELS = max(own, int(megapixels * 1e6))


def _too_large(
    path: Path, most: float, size: tuple[int, int] | None = None
) -> str:
    """Says what the limit on pixels is, and how to raise it."""
    has = f' ({size[0]} x {size[1]})' if size else ''
    return (
        f'The image {str(path)!r} has more than {most:g} million '
        f'pixels{has}, the limit on what is read. Scale it down, or raise the '
        'limit with MMHIPER_MAX_MEGAPIXELS (up to 16 bytes of memory a '
        'pixel).'
    )
