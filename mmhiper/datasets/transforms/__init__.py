"""Transforms of source images."""

from .geometry import SquareCrop
from .packing import PackSourceImage
from .upright import LoadUprightImage, load_mask, load_upright_image

__all__ = [
    'LoadUprightImage',
    'PackSourceImage',
    'SquareCrop',
    'load_mask',
    'load_upright_image',
]
