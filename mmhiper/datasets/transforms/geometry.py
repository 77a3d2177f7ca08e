"""Bringing a picture into the square that the backbone draws."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import BaseTransform

from mmhiper.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SquareCrop(BaseTransform):
    """Cut a square out of the image; by default the largest centred one.

    Required keys: ``img``. Modified keys: ``img``. Added keys: ``crop_box``
    ((left, top, size) in pixels of the upright image).

    The crop is fixed: a random crop of the only image, as in the official
    HiPer code, lets the subject wander and cuts it off now and then.

    Args:
        box (Sequence[int], optional): ``(left, top, size)`` of the square to
            cut, in pixels of the upright image. None cuts the largest
            centred square. From the command line:
            ``--cfg-options
            train_dataloader.dataset.pipeline.1.box="(40,0,512)"``.

    Raises:
        ValueError: If ``box`` is not three whole numbers or its size is not
            positive; in :meth:`transform` if it leaves the image.
    """

    def __init__(self, box: Sequence[int] | None = None) -> None:
        if box is not None and (
            len(box) != 3
            or not all(isinstance(value, int) for value in box)
            or box[2] < 1
        ):
            raise ValueError(
                '`box` must be (left, top, size) in whole pixels with a '
                f'positive size, but got {box!r}.'
            )
        self.box = box

    def transform(self, results: dict) -> dict:
        """Cut the square.

        Args:
            results (dict): Holds ``img`` (H, W, 3).

        Returns:
            dict: The same dict with ``img`` (S, S, 3) and ``crop_box``.
        """
        image = results['img']
        height, width = image.shape[:2]
        if self.box is None:
            size = min(height, width)
            left, top = (width - size) // 2, (height - size) // 2
        else:
            left, top, size = self.box
            if not (0 <= left <= width - size and 0 <= top <= height - size):
                raise ValueError(
                    f'The crop `box` (left, top, size) = {tuple(self.box)} '
                    f'must lie within the image, but {results["img_path"]!r} '
                    f'has {width} x {height} pixels (width x height).'
                )
        results['crop_box'] = (left, top, size)
        # (H, W, 3) -> (S, S, 3)
        results['img'] = image[top : top + size, left : left + size]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(box={self.box})'
