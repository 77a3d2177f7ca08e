"""Reading a picture as a person sees it: upright, RGB, 8 bits."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mmhiper.utils.depth import DEEP_GREY, to_8_bits
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.picture_files import open_picture

# How far the channels of a grey image may be apart, in [0, 255]: JPEG leaves
# them not quite equal.
MOST_COLOUR = 32
_SUBFILE_TYPE = 254  # of TIFF
# A picture is almost black, or white, if nearly all of its pixels are nearly.
_NEARLY = 24
_NEARLY_ALL = 0.995
_LOOKED_AT = 512  # pixels of a side are enough to tell


def _to_rgb(image: Image.Image, behind: str) -> Image.Image:
    """Convert an image of any Pillow mode, laid over a plain colour."""
    if image.has_transparency_data:
        if image.mode != 'RGBA':
            image = image.convert('RGBA')
        ground = Image.new('RGBA', image.size, behind)
        image = Image.alpha_composite(ground, image)
        del ground  # a large picture is held no more often than needed
    return image.convert('RGB')


def _read(path: Path, behind: str) -> tuple[Image.Image, list[str]]:
    """An image upright as RGB, and what may be other than it seems."""
    with open_picture(path) as file:
        _refuse_previews(file, path)
        warn = _about_frames(file)
        file.load()
        image = to_8_bits(file, path)
        if image is not file:
            turned = file.getexif().get(ExifTags.Base.Orientation, 1)
            image.getexif()[ExifTags.Base.Orientation] = turned
        ImageOps.exif_transpose(image, in_place=True)
        image = _to_rgb(image, behind)
    return image, warn + _about_light(image)


def _refuse_previews(file: Image.Image, path: Path) -> None:
    """Refuse the raw file of a camera, of which Pillow has a preview alone."""
    kind = getattr(file, 'tag_v2', {}).get(_SUBFILE_TYPE, 0)
    if file.format == 'TIFF' and isinstance(kind, int) and kind & 1:
        raise FileError(
            f'The first picture in {str(path)!r} is a small preview, as in '
            'raw files of cameras. Develop it, and save it as PNG or JPEG.'
        )


def _about_frames(file: Image.Image) -> list[str]:
    """Say that of several pictures in a file one is read."""
    # the second one of a phone's JPEG is a map of depth or light
    if file.format == 'MPO' or not getattr(file, 'is_animated', False):
        return []
    count = getattr(file, 'n_frames', 'several')
    return [f'has {count} frames or pages, of which the first is read.']


def _about_light(image: Image.Image) -> list[str]:
    """Say that next to nothing is to be seen in a picture."""
    step = max(1, min(image.size) // _LOOKED_AT)
    pixels = np.asarray(image)[::step, ::step]  # (h, w, 3)
    if (pixels.max(axis=2) < _NEARLY).mean() > _NEARLY_ALL:
        return [
            'is almost black: there is next to nothing to learn. If its '
            'values have fewer bits than the file has room for, such as 12 in '
            '16, save it with 8.'
        ]
    if (pixels.min(axis=2) > 255 - _NEARLY).mean() > _NEARLY_ALL:
        return ['is almost white: there is next to nothing to learn.']
    return []


def load_upright_image(path: str | Path) -> Image.Image:
    """Read an image file as RGB, turned upright by its EXIF orientation.

    Any mode that Pillow reads is accepted: grey, palette, 16 bits (by the
    range that the file says), CMYK; HEIC where ``pillow-heif`` is installed;
    transparent parts become white; of an animation the first frame is read.
    Warns about that, and about a picture that is almost black or white.

    Args:
        path: The image file.

    Returns:
        The upright image, mode ``'RGB'``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the path is a folder, or not an image that Pillow can
            read completely, or one of too many pixels.
    """
    image, remarks = _read(Path(path), 'white')
    for remark in remarks:
        warnings.warn(f'The image {str(path)!r} {remark}', stacklevel=2)
    return image


def upright(image: Image.Image, behind: str = 'white') -> Image.Image:
    """What :func:`load_upright_image` makes of a file, of one in memory.

    Args:
        image: Of at most 8 bits a channel.
        behind: The colour that transparent parts get.

    Returns:
        Mode ``'RGB'``; the one that was given stays as it is.

    Raises:
        ValueError: If it has more bits: what is white is said by its file.
    """
    if image.mode in DEEP_GREY:
        raise UserError(
            f'A picture of mode {image.mode!r} does not say what is white. '
            "Give the path of its file, or convert it to 'L' or 'RGB'."
        )
    return _to_rgb(ImageOps.exif_transpose(image), behind)


def load_mask(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask: white is the subject, grey counts in part.

    Args:
        path: An image file in black, white and greys; transparent parts are
            black.
        size: Width and height of its upright picture.

    Returns:
        (H, W) uint8, 255 where all of a pixel is subject.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no readable image, has colours, has another size
            than the picture, or has no subject.
    """
    image, _ = _read(Path(path), 'black')  # a small subject is no mistake
    return as_mask(image, size, f'the mask {str(path)!r}')


def as_mask(
    image: Image.Image, size: tuple[int, int], named: str
) -> np.ndarray:
    """Checks a mask: white is the subject, grey counts in part.

    Args:
        image: In black, white and greys, mode ``'RGB'``.
        size: Width and height of its upright picture.
        named: What it is called in messages.

    Returns:
        (H, W) uint8, 255 where all of a pixel is subject.

    Raises:
        ValueError: If it has colours, has another size than the picture, or
            has no subject.
    """
    if image.size != size:
        turned = image.size == size[::-1]
        raise FileError(
            'A mask must be as large as its picture, which is '
            f'{size[0]} x {size[1]} pixels (width x height) when upright, '
            f'but {named} is {image.width} x {image.height}. '
            f'{"Turn" if turned else "Scale"} the mask like the picture.'
        )
    channels = np.asarray(image)  # (H, W, 3)
    if np.ptp(channels, axis=2).max() > MOST_COLOUR:
        raise FileError(
            'A mask must be black, white and grey (white is the subject), '
            f'but {named} has colours. Is it the picture itself?'
        )
    mask = channels[..., 0]
    if mask.max() < 128:
        raise FileError(
            f'{named[0].upper()}{named[1:]} has no subject: its brightest '
            f'pixel is '
            f'{mask.max()}, and white is 255. Paint the subject white (scale '
            'a label map of 0 and 1 by 255).'
        )
    return mask
