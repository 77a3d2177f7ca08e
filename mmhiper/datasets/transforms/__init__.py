"""Transforms of source images."""

from mmhiper.utils.upright import load_mask, load_upright_image

from .geometry import SquareCrop
from .packing import PackSourceImage
from .upright import LoadUprightImage

__all__ = [
    'LoadUprightImage',
    'PackSourceImage',
    'SquareCrop',
    'load_mask',
    'load_upright_image',
]
