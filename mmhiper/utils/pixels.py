"""Pictures as tensors: their names, and what to show of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmhiper.utils.errors import UserError

# How much contrast is left of what is faded.
FADED = 0.2
# What a user may ask pictures as.
RETURN_TYPES = ('image', 'tensor', 'numpy')


def check_return_type(return_type: str) -> None:
    """Refuses what pictures cannot be given as.

    Args:
        return_type: One of ``RETURN_TYPES``.

    Raises:
        ValueError: If it is another.
    """
    if return_type not in RETURN_TYPES:
        raise UserError(
            f'`return_type` must be one of {RETURN_TYPES}, but got '
            f'{return_type!r}.'
        )


def as_return_type(pixels: Tensor, return_type: str) -> Any:
    """Gives pictures the type that was asked for.

    Args:
        pixels: (B, 3, H, W) in [-1, 1].
        return_type: 'image', 'tensor' or 'numpy'.

    Returns:
        A list of B PIL pictures; a tensor on the CPU or an array, RGB.
    """
    if return_type == 'tensor':
        return pixels.cpu()
    if return_type == 'numpy':
        return pixels.cpu().numpy()
    return [to_pil(picture) for picture in pixels]


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Brings a picture to a size, smooth where it shrinks.

    Args:
        pixels: (3, H, W) in [-1, 1].
        height: Of the result.
        width: Likewise.

    Returns:
        (3, height, width) in [-1, 1]; the same if it has that size.
    """
    if pixels.shape[1:] == (height, width):
        return pixels
    scaled = F.interpolate(
        pixels[None], size=(height, width), mode='bicubic', antialias=True
    )
    return scaled[0].clamp(-1, 1)  # bicubic overshoots at edges


def to_uint8(pixels: Tensor) -> Tensor:
    """Rounds a picture to bytes.

    Args:
        pixels: (3, H, W) in [-1, 1]; what is outside is clamped.

    Returns:
        (3, H, W) uint8 in [0, 255], on the CPU.
    """
    unit = (pixels.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).cpu()


def to_pil(pixels: Tensor) -> Image.Image:
    """Makes a PIL picture.

    Args:
        pixels: (3, H, W), in [-1, 1] or uint8 in [0, 255].

    Returns:
        RGB.
    """
    if pixels.dtype != torch.uint8:
        pixels = to_uint8(pixels)
    # (3, H, W) -> (H, W, 3)
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0)))


def overlay_heat(pixels: Tensor, heat: Tensor) -> Image.Image:
    """Lays a heat map over a picture: blue is cold, red is hot.

    Args:
        pixels: (3, H, W) in [-1, 1].
        heat: (H, W) in [0, 1].

    Returns:
        RGB.
    """
    # each colour peaks at its own heat: red .75, green .5, blue .25
    peaks = torch.tensor([0.75, 0.5, 0.25], device=heat.device)
    ramps = 1.5 - 4 * (heat - peaks[:, None, None]).abs()
    colours = 2 * ramps.clamp(0, 1) - 1  # (3, H, W) in [-1, 1]
    return to_pil((pixels.clamp(-1, 1) + colours) / 2)


def source_panel(
    pixels: Tensor, mask: Tensor | None = None
) -> tuple[str, Image.Image]:
    """Shows a source picture as a training sees it.

    Args:
        pixels: (3, H, W) in [-1, 1].
        mask: (H, W) in [0, 1]. What it leaves out (what is not the subject,
            padding) is faded to grey.

    Returns:
        Caption and picture, RGB.
    """
    if mask is None:
        return 'source', to_pil(pixels)
    faded = pixels * (FADED + (1 - FADED) * mask)
    return 'source (faded: not learned)', to_pil(faded)


def without_sources(
    panels: Sequence[tuple[str, Image.Image]],
) -> list[tuple[str, Image.Image]]:
    """What a preview shows beside the pictures that are learned from.

    Args:
        panels: Captions and pictures, those of :func:`source_panel` behind
            the name of a word, and what the autoencoder makes of one, too.
    """
    given = re.compile(r'(.+: )?source( \(faded.*\))?|autoencoder')
    return [each for each in panels if not given.fullmatch(each[0])]


def image_key(image: Tensor) -> str:
    """Names a picture by its content.

    Args:
        image: (3, H, W) uint8.

    Returns:
        16 hexadecimal digits.
    """
    content = image.cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
