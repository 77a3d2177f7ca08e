"""Loading a picture as a person sees it: upright, RGB, 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image, ImageOps, UnidentifiedImageError

from mmhiper.registry import TRANSFORMS

# Pillow's single-channel modes that hold more than 8 bits.
_DEEP_GREY = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N', 'F')


def _deep_grey_to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale a 16-bit or floating-point grey image to 8 bits.

    ``Image.convert`` clips such an image at 255 instead, which turns most
    16-bit scans white.
    """
    values = np.asarray(image, dtype=np.float64)
    low, high = values.min(), values.max()
    white = 1.0 if image.mode == 'F' else 65535.0
    if not (low >= 0 and high <= white):  # also false for NaN
        raise ValueError(
            f'Cannot tell black from white in {str(path)!r}: a one-channel '
            f'image of mode {image.mode!r} must have values in '
            f'[0, {white:g}], but got [{low:g}, {high:g}]. Save it as an '
            'ordinary 8-bit PNG or JPEG.'
        )
    return Image.fromarray((values / white * 255).round().astype(np.uint8))


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert an image of any Pillow mode; transparency becomes white."""
    if image.mode in _DEEP_GREY:
        image = _deep_grey_to_8_bits(image, path)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, image)
    return image.convert('RGB')


def load_upright_image(path: str | Path) -> Image.Image:
    """Read an image file as RGB, turned upright by its EXIF orientation.

    Any mode that Pillow reads is accepted: grey, palette, 16 bits, CMYK;
    transparent parts become white; of an animation the first frame is read.

    Args:
        path (str | Path): The image file.

    Returns:
        PIL.Image.Image: The upright image, mode ``'RGB'``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the path is a folder, or not an image that Pillow can
            read completely.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f'Wanted an image file, but {str(path)!r} does not exist '
            f'(current folder: {str(Path.cwd())!r}). Check the path.'
        )
    if path.is_dir():
        raise ValueError(
            f'Wanted an image file, but {str(path)!r} is a folder. '
            'Name one image in it.'
        )
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
            return _to_rgb(image, path)
    except UnidentifiedImageError:
        raise ValueError(
            f'{str(path)!r} is not an image that Pillow can read '
            f'({path.stat().st_size} bytes). Save it as PNG or JPEG.'
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow reports damaged files by OSError, and by SyntaxError in its
        # PNG reader.
        raise ValueError(
            f'The image {str(path)!r} cannot be read completely: {error}. '
            'The file is damaged, truncated, too large or not readable for '
            'this user; get a fresh copy or save it anew.'
        ) from None


@TRANSFORMS.register_module()
class LoadUprightImage(BaseTransform):
    """Load ``img_path`` by :func:`load_upright_image`.

    Required keys: ``img_path``. Added keys: ``img`` ((H, W, 3) uint8, RGB,
    [0, 255]), ``ori_shape`` ((H, W) in pixels, after turning upright).

    mmcv's ``LoadImageFromFile`` is not used because its backends disagree on
    16-bit and CMYK images and report a broken file by an ``AssertionError``.
    """

    def transform(self, results: dict) -> dict:
        """Load the image.

        Args:
            results (dict): Holds ``img_path``.

        Returns:
            dict: The same dict with ``img`` and ``ori_shape``.
        """
        image = np.array(load_upright_image(results['img_path']))
        results['img'] = image  # (H, W, 3) uint8
        results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
