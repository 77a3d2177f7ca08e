"""Pictures of more than 8 bits a channel, as 8 bits."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from mmhiper.utils.errors import FileError

# Pillow's single-channel modes that hold more than 8 bits.
DEEP_GREY = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N', 'F')
_PNG = b'\x89PNG\r\n\x1a\n'
_MOST_CHUNKS = 1000  # before the pixels
# Of TIFF, the lowest and the highest sample value: of any type, of integers.
_RANGES = ((340, 341), (280, 281))
_BITS = 258


def to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scales a picture of more than 8 bits a channel by its own range.

    That is what the file says (``sBIT`` of PNG, the sample values and bits
    of TIFF), else all that its type holds. Pillow would clip one channel at
    255, which turns most scans white, and drop the lower 8 bits of several,
    which turns 12 bits in 16 black.

    Args:
        image: Decoded.

    Returns:
        Of at most 8 bits a channel; the same if it is.

    Raises:
        ValueError: If its values are in no known range.
    """
    if image.mode in DEEP_GREY:
        return _grey(image, path)
    white = _said_range(image, path)[1]
    if image.mode in ('RGB', 'RGBA') and white is not None and white < 65535:
        return _colour(image, path, white)
    return image


def _grey(image: Image.Image, path: Path) -> Image.Image:
    """Scales one channel."""
    values = np.array(image)
    low, high = values.min(), values.max()
    black, white = _said_range(image, path)
    if (
        white is None
        or not (black <= low and high <= white)
        or (image.format == 'PNG' and _is_scaled(values, int(white)))
    ):
        black, white = 0.0, 1.0 if image.mode == 'F' else 65535.0
    if not (low >= black and high <= white):  # also false for NaN
        raise FileError(
            f'Cannot tell black from white in {str(path)!r}: a one-channel '
            f'image of mode {image.mode!r} must have values in '
            f'[0, {white:g}], but got [{low:g}, {high:g}]. Save it as an '
            'ordinary 8-bit PNG or JPEG.'
        )
    # single precision is exact: no sixteen bits are half way between two of 8
    scaled = values.astype(np.float32)
    if black:
        scaled -= black
    scaled *= 255 / (white - black)
    pixels = scaled.round(out=scaled).astype(np.uint8)
    return Image.fromarray(pixels)


def _colour(image: Image.Image, path: Path, white: float) -> Image.Image:
    """Scales several channels, of which Pillow has the upper 8 bits alone."""
    import cv2  # mmcv needs it too

    data = np.frombuffer(path.read_bytes(), np.uint8)
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return image
    # from BGR
    values = values[..., [2, 1, 0, 3][: values.shape[2]]].astype(np.int32)
    if (
        # which shows that both decoders read the same, upright or not
        not np.array_equal(np.right_shift(values, 8), np.asarray(image))
        or values.max() > white
        or (image.format == 'PNG' and _is_scaled(values, int(white)))
    ):
        return image
    scaled = values.astype(np.float32)
    scaled *= 255 / white
    pixels = scaled.round(out=scaled).astype(np.uint8)
    return Image.fromarray(pixels)


def _is_scaled(values: np.ndarray, white: int) -> bool:
    """Whether values of fewer bits fill 16, as PNG wants it."""
    # Their upper bits are then again in the lower ones, or zeros are.
    if values.max() > white:
        return True
    bits = white.bit_length()
    values = values.astype(np.int64)
    upper = values >> (16 - bits)
    again = upper << (16 - bits)
    return bool(
        values.any()
        and (
            (values == again).all() or (values == again | upper >> bits).all()
        )
    )


def _said_range(image: Image.Image, path: Path) -> tuple[float, float | None]:
    """Black and white, where a file says what they are."""
    if image.format == 'PNG':
        bits = _significant_bits(path)
        return 0.0, None if bits is None else float(2**bits - 1)
    if image.format != 'TIFF':
        return 0.0, None
    tags = getattr(image, 'tag_v2', {})
    for lowest, highest in _RANGES:
        white = _number(tags.get(highest), max)
        black = _number(tags.get(lowest), min) or 0.0
        if white is not None and white > black:
            return black, white
    depth = _number(tags.get(_BITS), max)
    if depth is not None and 8 < depth < 16:
        return 0.0, 2**depth - 1
    return 0.0, None


def _number(
    value: object, choose: Callable[[list[float]], float]
) -> float | None:
    """One number of a tag that has one for each channel."""
    values = value if isinstance(value, tuple) else (value,)
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    return choose(numbers) if numbers else None


def _significant_bits(path: Path) -> int | None:
    """How many of 16 bits a PNG file says to use, if fewer."""
    with path.open('rb') as file:
        chunks = dict(_chunks(file))
    header = chunks.get(b'IHDR', b'')
    if len(header) < 10 or header[8] != 16:
        return None
    # of the colours; a last one of an even number is that of transparency
    said = chunks.get(b'sBIT', b'')
    colours = said[: len(said) - 1] if len(said) in (2, 4) else said
    bits = max(colours, default=16)
    return bits if 8 < bits < 16 else None


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The short chunks of a PNG file before its pixels."""
    if file.read(8) != _PNG:
        return
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b'IDAT':
            return
        (length,) = struct.unpack('>I', head[:4])
        if length <= 16:
            yield head[4:], file.read(length)
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
