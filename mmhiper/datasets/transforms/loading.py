"""Loading a picture as a person sees it: upright, RGB, 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image, ImageOps

from mmhiper.registry import TRANSFORMS
from mmhiper.utils.errors import FileError
from mmhiper.utils.picture_files import open_picture

# Pillow's single-channel modes that hold more than 8 bits.
_DEEP_GREY = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N', 'F')

# How far the channels of a grey image may be apart, in [0, 255]: JPEG leaves
# them not quite equal.
MOST_COLOUR = 32


def _deep_grey_to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale a 16-bit or floating-point grey image to 8 bits.

    ``Image.convert`` clips such an image at 255 instead, which turns most
    16-bit scans white.
    """
    # in place, and exact: no sixteen bits are half way between two of eight
    values = np.array(image, dtype=np.float32)
    low, high = values.min(), values.max()
    white = 1.0 if image.mode == 'F' else 65535.0
    if not (low >= 0 and high <= white):  # also false for NaN
        raise FileError(
            f'Cannot tell black from white in {str(path)!r}: a one-channel '
            f'image of mode {image.mode!r} must have values in '
            f'[0, {white:g}], but got [{low:g}, {high:g}]. Save it as an '
            'ordinary 8-bit PNG or JPEG.'
        )
    values *= 255 / white
    return Image.fromarray(values.round(out=values).astype(np.uint8))


def _to_rgb(image: Image.Image, path: Path, behind: str) -> Image.Image:
    """Convert an image of any Pillow mode, laid over a plain colour."""
    if image.mode in _DEEP_GREY:
        image = _deep_grey_to_8_bits(image, path)
    if image.has_transparency_data:
        if image.mode != 'RGBA':
            image = image.convert('RGBA')
        ground = Image.new('RGBA', image.size, behind)
        image = Image.alpha_composite(ground, image)
        del ground  # a large picture is held no more often than needed
    return image.convert('RGB')


def load_upright_image(path: str | Path, behind: str = 'white') -> Image.Image:
    """Read an image file as RGB, turned upright by its EXIF orientation.

    Any mode that Pillow reads is accepted: grey, palette, 16 bits, CMYK;
    transparent parts become white; of an animation the first frame is read.

    Args:
        path (str | Path): The image file.
        behind (str): The colour seen through transparent parts.

    Returns:
        PIL.Image.Image: The upright image, mode ``'RGB'``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the path is a folder, or not an image that Pillow can
            read completely, or one of too many pixels.
    """
    path = Path(path)
    with open_picture(path) as file:
        file.load()
        ImageOps.exif_transpose(file, in_place=True)
        return _to_rgb(file, path, behind)


def load_mask(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask: white is the subject, grey counts in part.

    Args:
        path (str | Path): An image file in black, white and greys;
            transparent parts are black.
        size (tuple[int, int]): Width and height of its upright picture.

    Returns:
        np.ndarray: (H, W) uint8, 255 where all of a pixel is subject.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no readable image, has colours, has another size
            than the picture, or has no subject.
    """
    image = load_upright_image(path, behind='black')
    if image.size != size:
        turned = image.size == size[::-1]
        raise FileError(
            'A mask must be as large as its picture, which is '
            f'{size[0]} x {size[1]} pixels (width x height) when upright, '
            f'but {str(path)!r} is {image.width} x {image.height}. '
            f'{"Turn" if turned else "Scale"} the mask like the picture.'
        )
    channels = np.asarray(image)  # (H, W, 3)
    if np.ptp(channels, axis=2).max() > MOST_COLOUR:
        raise FileError(
            'A mask must be black, white and grey (white is the subject), '
            f'but {str(path)!r} has colours. Is it the picture itself?'
        )
    mask = channels[..., 0]
    if mask.max() < 128:
        raise FileError(
            f'The mask {str(path)!r} has no subject: its brightest pixel is '
            f'{mask.max()}, and white is 255. Paint the subject white (scale '
            'a label map of 0 and 1 by 255).'
        )
    return mask


@TRANSFORMS.register_module()
class LoadUprightImage(BaseTransform):
    """Load ``img_path`` by :func:`load_upright_image`, and its mask.

    Required keys: ``img_path``. Optional keys: ``mask_path``. Added keys:
    ``img`` ((H, W, 3) uint8, RGB, [0, 255]), ``ori_shape`` ((H, W) in pixels,
    after turning upright), and with a ``mask_path`` ``mask`` ((H, W) uint8,
    255 is the subject; see :func:`load_mask`).

    mmcv's ``LoadImageFromFile`` is not used because its backends disagree on
    16-bit and CMYK images and report a broken file by an ``AssertionError``.
    """

    def transform(self, results: dict) -> dict:
        """Load the image, and its mask if it has one.

        Args:
            results (dict): Holds ``img_path``, perhaps ``mask_path``.

        Returns:
            dict: The same dict with ``img``, ``ori_shape``, perhaps ``mask``.
        """
        image = np.array(load_upright_image(results['img_path']))
        height, width = image.shape[:2]
        results['img'] = image  # (H, W, 3) uint8
        results['ori_shape'] = height, width
        if results.get('mask_path') is not None:
            results['mask'] = load_mask(results['mask_path'], (width, height))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
