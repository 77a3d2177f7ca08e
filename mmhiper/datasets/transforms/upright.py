"""Loading a picture as a person sees it: upright, RGB, 8 bits."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from typing_extensions import override

from mmhiper.registry import TRANSFORMS
from mmhiper.utils.upright import load_mask, load_upright_image


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

    @override
    def transform(self, results: dict) -> dict:
        """Load the image, and its mask if it has one.

        Args:
            results: Holds ``img_path``, perhaps ``mask_path``.

        Returns:
            The same dict with ``img``, ``ori_shape``, perhaps ``mask``.
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
