"""Opening picture files, whatever they are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import check_file, limit, reason_of

# In millions: what cameras take. A pixel costs 10 to 16 bytes while it is
# read (as stored, over a plain ground, as RGB), so this is 1.6 GB at most.
MAX_MEGAPIXELS = 100
# To draw these Pillow starts another program, or hands them to the system:
# their content is code.
_PROGRAMS = ('EPS', 'WMF')


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Opens a picture file; what Pillow raises is told in one line.

    Nothing but what Pillow does with the file belongs inside.

    Args:
        path (str or Path): The file.

    Yields:
        PIL.Image.Image: Not decoded yet.

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
                    raise FileError(_too_large(path, most))
                yield image
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise FileError(_too_large(path, most)) from None
    except UnidentifiedImageError:
        raise FileError(
            f'{str(path)!r} is not an image that Pillow can read '
            f'({path.stat().st_size} bytes). Save it as PNG or JPEG.'
        ) from None
    except Exception as error:  # decoders raise nearly anything
        raise FileError(
            f'The image {str(path)!r} cannot be read completely: '
            f'{reason_of(error)}. The file is damaged, truncated or not '
            'readable for this user; get a fresh copy or save it anew.'
        ) from error


def is_picture(path: Path) -> bool:
    """Whether Pillow knows the format; a damaged picture is one too.

    Args:
        path (Path): An ordinary file.

    Returns:
        bool: The answer.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path, formats=_formats()):
                return True
    except UnidentifiedImageError:
        return False
    except MemoryError:
        raise
    except Exception:  # it began to read one
        return True


def _formats() -> list[str]:
    """What Pillow decodes by itself, with what plugins have added."""
    Image.init()
    return [name for name in Image.OPEN if name not in _PROGRAMS]


def _allow(megapixels: float) -> None:
    """Raises Pillow's own limit to one that the user has raised."""
    own = Image.MAX_IMAGE_PIXELS
    if own is not None and megapixels > MAX_MEGAPIXELS:
        Image.MAX_IMAGE_PIXELS = max(own, int(megapixels * 1e6))


def _too_large(path: Path, most: float) -> str:
    return (
        f'The image {str(path)!r} has more than {most:g} million pixels, the '
        'limit on what is read. Scale it down, or raise the limit with '
        'MMHIPER_MAX_MEGAPIXELS (up to 16 bytes of memory a pixel).'
    )
