"""Transforms of source images."""

from .geometry import SquareCrop
from .loading import LoadUprightImage, load_mask, load_upright_image
from .packing import PackSourceImage

__all__ = [
    'LoadUprightImage',
    'PackSourceImage',
    'SquareCrop',
    'load_mask',
    'load_upright_image',
]
