"""Datasets of source images and their transforms."""

from .source_image import SourceImageDataset
from .transforms import (
    LoadUprightImage,
    PackSourceImage,
    SquareCrop,
    load_upright_image,
)

__all__ = [
    'LoadUprightImage',
    'PackSourceImage',
    'SourceImageDataset',
    'SquareCrop',
    'load_upright_image',
]
