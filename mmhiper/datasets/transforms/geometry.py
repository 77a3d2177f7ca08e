"""Bringing a picture into the square that the backbone draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform
from typing_extensions import override

from mmhiper.registry import TRANSFORMS
from mmhiper.utils.errors import UserError

CROPS = ('center', 'none', 'subject')
# Room around the subject, as a fraction of its longer side.
MARGIN = 0.1


class _Box(NamedTuple):
    """A box in pixels of the upright image, x1 and y1 exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@TRANSFORMS.register_module()
class SquareCrop(BaseTransform):
    """Cut a square out of the image; by default the largest centred one.

    Required keys: ``img``. Optional keys: ``mask``. Modified keys: both.
    Added keys: ``crop_box`` ((left, top, size) in pixels of the upright
    image) and, where the square reaches beyond the image, ``mask``.

    What the square has beyond the image continues its outermost pixels and
    is black in the mask, so that no loss counts it: nothing is learned of it.

    The crop is fixed: a random crop of the only image, as in the official
    HiPer code, lets the subject wander and cuts it off now and then.

    Args:
        crop: What must be in the square. ``'center'``: nothing, it is the
            largest centred one. ``'none'``: the whole image. ``'subject'``:
            the white of the mask and a tenth more on each side. ``(x0, y0, x1,
            y1)``: a box in pixels of the upright image, x1 and y1 exclusive.
            The square around a box is as small as can be and lies in the image
            where it fits. From the command line: ``--cfg-options
            train_dataloader.dataset.pipeline.1.crop="(40,0,552,480)"``.

    Raises:
        ValueError: If ``crop`` is none of these; in :meth:`transform` if a
            box leaves the image, ``'subject'`` has no mask, or nothing of the
            subject is in the square.
    """

    def __init__(self, crop: str | Sequence[int] = 'center') -> None:
        if crop not in CROPS and not _is_box(crop):
            raise UserError(
                f'`crop` must be one of {CROPS} or a box (x0, y0, x1, y1) in '
                'whole pixels with 0 <= x0 < x1 and 0 <= y0 < y1, but got '
                f'{crop!r}.'
            )
        self.crop = crop
        self._box = None if isinstance(crop, str) else _Box(*crop)

    @override
    def transform(self, results: dict) -> dict:
        """Cut the square.

        Args:
            results: Holds ``img`` (H, W, 3), perhaps ``mask`` (H, W).

        Returns:
            The same dict with ``img`` (S, S, 3), ``crop_box`` and, where there
            was one or there is padding, ``mask`` (S, S).
        """
        image, mask = results['img'], results.get('mask')
        left, top, size = self._square(results)
        height, width = image.shape[:2]
        inside = 0 <= left <= width - size and 0 <= top <= height - size
        if mask is None and not inside:
            mask = np.full((height, width), 255, np.uint8)
        results['crop_box'] = (left, top, size)
        # (H, W, 3) -> (S, S, 3)
        results['img'] = _cut(image, left, top, size, mode='edge')
        if mask is not None:
            mask = _cut(mask, left, top, size, mode='constant')
            if mask.max() < 128:
                raise UserError(
                    f'The crop {self.crop!r} of {results["img_path"]!r} has '
                    'nothing of the subject that its mask shows. Take the '
                    "crop 'subject', or 'none' for the whole picture."
                )
            results['mask'] = mask
        return results

    def _square(self, results: dict) -> tuple[int, int, int]:
        """Left, top and size of the square, which may leave the image."""
        height, width = results['img'].shape[:2]
        if self.crop == 'center':
            size = min(height, width)
            return (width - size) // 2, (height - size) // 2, size
        if self._box is not None:
            box = self._box
        elif self.crop == 'subject':
            box = _subject_box(results)
        else:
            box = _Box(0, 0, width, height)
        if box.x1 > width or box.y1 > height:
            raise UserError(
                f'The crop box (x0, y0, x1, y1) = {tuple(box)} must lie '
                f'within the image, but {results["img_path"]!r} has {width} '
                f'x {height} pixels (width x height).'
            )
        size = max(box.x1 - box.x0, box.y1 - box.y0)
        left = _place((box.x0 + box.x1 - size) // 2, size, width)
        top = _place((box.y0 + box.y1 - size) // 2, size, height)
        return left, top, size

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop={self.crop!r})'


def _is_box(crop: Any) -> bool:
    """Whether it is (x0, y0, x1, y1) with something in it."""
    return (
        isinstance(crop, Sequence)
        and len(crop) == 4
        and all(isinstance(value, int) for value in crop)
        and 0 <= crop[0] < crop[2]
        and 0 <= crop[1] < crop[3]
    )


def _subject_box(results: dict) -> _Box:
    """The box of the mask's white with a margin, within the image."""
    mask = results.get('mask')
    if mask is None:
        raise UserError(
            "The crop 'subject' is around the white of a mask, but "
            f'{results["img_path"]!r} has no mask. Give one (`mask` of the '
            'dataset), or a box (x0, y0, x1, y1).'
        )
    rows, columns = np.nonzero(mask >= 128)
    x0, x1 = int(columns.min()), int(columns.max()) + 1
    y0, y1 = int(rows.min()), int(rows.max()) + 1
    margin = round(MARGIN * max(x1 - x0, y1 - y0))
    height, width = mask.shape
    return _Box(
        max(x0 - margin, 0),
        max(y0 - margin, 0),
        min(x1 + margin, width),
        min(y1 + margin, height),
    )


def _place(start: int, size: int, length: int) -> int:
    """Moves a span into the image, or centres it where it is longer."""
    # the start of the span; negative where it is longer than the image
    if size > length:
        return (length - size) // 2
    return min(max(start, 0), length - size)


def _cut(
    image: np.ndarray, left: int, top: int, size: int, mode: str
) -> np.ndarray:
    """Cuts a square that may reach beyond the image."""
    # (H, W) or (H, W, C) -> (size, size) or (size, size, C)
    height, width = image.shape[:2]
    cut = image[
        max(top, 0) : min(top + size, height),
        max(left, 0) : min(left + size, width),
    ]
    above, beside = max(-top, 0), max(-left, 0)
    below = size - above - cut.shape[0]
    beyond = size - beside - cut.shape[1]
    if not (above or beside or below or beyond):
        return cut
    pad = [(above, below), (beside, beyond)] + [(0, 0)] * (image.ndim - 2)
    return np.pad(cut, pad, mode=mode)  # type: ignore[call-overload]
