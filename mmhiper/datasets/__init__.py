"""Datasets of source images and of concepts, and their transforms."""

from .source_image import SourceImageDataset
from .textual_inversion import TextualInversionDataset
from .transforms import (
    LoadUprightImage,
    PackSourceImage,
    SquareCrop,
    load_mask,
    load_upright_image,
)

__all__ = [
    'LoadUprightImage',
    'PackSourceImage',
    'SourceImageDataset',
    'SquareCrop',
    'TextualInversionDataset',
    'load_mask',
    'load_upright_image',
]
