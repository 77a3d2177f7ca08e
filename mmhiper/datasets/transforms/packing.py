"""Packing a source image into the form that editors take."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement
from typing_extensions import override

from mmhiper.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackSourceImage(BaseTransform):
    """Pack ``img`` into ``inputs`` and what is known of it into
    ``data_samples``.

    Required keys: ``img``, ``img_path``, ``image_index``. Optional keys:
    ``mask``. The result is ``dict(inputs, data_samples)``: a (3, H, W) uint8
    tensor, RGB in [0, 255], and a ``BaseDataElement`` with, where present,
    the ``mask`` ((H, W) uint8, 255 is what the loss counts) and the meta
    information ``img_path``, ``image_index`` and, where present,
    ``ori_shape``, ``crop_box`` and ``prompts``. The data preprocessor brings
    the picture to the backbone's own resolution, so that no config has to
    name it.
    """

    meta_keys = (
        'img_path',
        'image_index',
        'ori_shape',
        'crop_box',
        'prompts',
    )

    @override
    def transform(self, results: dict) -> dict:
        """Pack the image.

        Args:
            results: Holds ``img`` (H, W, 3), ``img_path`` and ``image_index``,
                perhaps ``mask`` (H, W).

        Returns:
            ``inputs`` and ``data_samples``.
        """
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        meta = {key: results[key] for key in self.meta_keys if key in results}
        sample = BaseDataElement(metainfo=meta)
        if 'mask' in results:
            mask = np.ascontiguousarray(results['mask'])
            sample.set_data(dict(mask=torch.from_numpy(mask)))
        return dict(
            inputs=torch.from_numpy(image),  # (3, H, W) uint8
            data_samples=sample,
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
