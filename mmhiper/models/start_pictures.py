"""Pictures to begin with, and masks of them, as users give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmhiper.models.sampling import Start
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import resized
from mmhiper.utils.upright import (
    as_mask,
    load_mask,
    load_upright_image,
    upright,
)

Picture = str | Path | Image.Image | Tensor
Pictures = Picture | Sequence[Picture]
# What is done where nobody says, as in the pipelines of diffusers.
DENOISE = 0.8


def read_start(
    image: Pictures | None,
    mask: Pictures | None,
    denoise: float | None,
    count: int,
    size: tuple[int, int],
    factor: int,
) -> Start | None:
    """Reads what pictures are to be drawn from.

    A picture is turned upright, and cut to the largest centred part of the
    proportions that are drawn, which is brought to their size.

    Args:
        image: A path, a PIL picture, or a tensor, (3, H, W) in [-1, 1] or
            uint8; one for all prompts or one each. None for none.
        mask: Of the picture, as large when upright: white, from half on, may
            change, black stays. Likewise, a tensor (H, W) in [0, 1] or uint8.
        denoise: The share of the steps that is done, in (0, 1].
        count: Prompts P.
        size: Height and width of what is drawn.
        factor: Pixels per latent along each side.

    Returns:
        P pictures and perhaps masks, (P, 1, h, w); None without a picture.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If something is none of these, or nothing may change.
    """
    if image is None:
        for name, given in (('mask', mask), ('denoise', denoise)):
            if given is not None:
                raise UserError(
                    f'`{name}` is of a picture to begin with: give `image` '
                    'too.'
                )
        return None
    denoise = DENOISE if denoise is None else denoise
    if not 0 < denoise <= 1:
        raise UserError(f'`denoise` must be in (0, 1], but got {denoise}.')
    pictures = _each('image', image, 3, count, _read_picture)
    drawn = torch.stack([_cut_to(each, *size) for each in pictures])
    start = Start(drawn, denoise)
    if mask is not None:
        listed = _each('mask', mask, 2, count, lambda each: each)
        masks = [
            _latent_mask(_read_mask(each, picture.shape[1:]), size, factor)
            for each, picture in zip(listed, pictures, strict=True)
        ]
        start = Start(drawn, denoise, torch.stack(masks))
    return start


def _each(
    name: str,
    given: Any,
    ndim: int,
    count: int,
    read: Callable[[Any], Any],
) -> list[Any]:
    """One thing for all prompts, or one of each, read once."""
    if isinstance(given, Tensor) and given.ndim > ndim:
        given = list(given)
    several = isinstance(given, list | tuple)
    if several and len(given) != count:
        raise UserError(
            f'`{name}` must be one for all prompts, or one for each of '
            f'{count}, but got {len(given)}.'
        )
    if several:
        return [read(each) for each in given]
    return [read(given)] * count


def _read_picture(image: Any) -> Tensor:
    """A picture upright, (3, H, W) in [-1, 1]."""
    if isinstance(image, Tensor):
        pixels = _scaled('image', image)
        if image.dtype == torch.uint8:
            pixels = pixels * 2 - 1
        if (
            image.ndim != 3
            or len(image) != 3
            or not image.numel()
            or not (pixels.abs() <= 1).all()  # NaN neither
        ):
            raise UserError(
                'A tensor as `image` must be a (3, H, W) RGB picture in '
                f'[-1, 1], or uint8, but got {_described(image)}.'
            )
        return pixels.cpu()
    if isinstance(image, Image.Image):
        image = upright(image)
    else:
        image = load_upright_image(image)
    array = np.array(image)  # (H, W, 3) -> (3, H, W)
    return torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1


def _read_mask(mask: Any, size: torch.Size) -> Tensor:
    """A mask, (H, W) in [0, 1]."""
    height, width = size
    if isinstance(mask, Tensor):
        share = _scaled('mask', mask)
        if (
            not (mask.shape == size or mask.shape == (1, *size))
            or not ((share >= 0) & (share <= 1)).all()
        ):
            raise UserError(
                'A tensor as `mask` must be as large as its picture, '
                f'({height}, {width}), in [0, 1] or uint8, but got '
                f'{_described(mask)}.'
            )
        return share.view(height, width).cpu()
    if isinstance(mask, Image.Image):
        array = as_mask(upright(mask, 'black'), (width, height), 'the mask')
    else:
        array = load_mask(mask, (width, height))
    return torch.from_numpy(array.copy()).float() / 255


def _scaled(name: str, tensor: Tensor) -> Tensor:
    """Values in [0, 1], where bytes or truth values are given."""
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if name == 'mask' and tensor.dtype == torch.bool:
        return tensor.float()
    if not tensor.is_floating_point():
        raise UserError(
            f'A tensor as `{name}` must be of real numbers or uint8, but got '
            f'{_described(tensor)}.'
        )
    return tensor.detach().float()


def _described(tensor: Tensor) -> str:
    """Shape, type and range of a tensor."""
    within = ''
    if tensor.numel() and not tensor.is_complex():
        within = f' in [{tensor.min().item():g}, {tensor.max().item():g}]'
    return f'shape {tuple(tensor.shape)}, {tensor.dtype}{within}'


def _centred(image: Tensor, height: int, width: int) -> Tensor:
    """The largest centred part, (..., H, W), of some proportions."""
    rows, columns = image.shape[-2:]
    tall = max(1, min(rows, round(columns * height / width)))
    wide = max(1, min(columns, round(rows * width / height)))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return image[..., top : top + tall, left : left + wide]


def _cut_to(pixels: Tensor, height: int, width: int) -> Tensor:
    """A picture in a size, without being bent."""
    return resized(_centred(pixels, height, width), height, width)


def _latent_mask(mask: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """A mask at the size of the latents, (1, h, w), of 0 and 1."""
    # halves are told before and by the nearest pixel, as in diffusers
    area = F.interpolate(_centred(mask, *size)[None, None], size, mode='area')
    sure = (area >= 0.5).float()
    latent = F.interpolate(sure, tuple(side // factor for side in size))[0]
    if not latent.any():
        raise UserError(
            'Nothing of the picture may change: where it is drawn `mask` is '
            f'black, or has less than {factor} pixels of white. White may '
            'change, black stays.'
        )
    return latent
