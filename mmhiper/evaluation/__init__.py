"""Measures of what an editor has learned, and of its edits."""

from mmhiper.evaluation.clip_features import ClipFeatures
from mmhiper.evaluation.dino import StructureDistance
from mmhiper.evaluation.edited import Edited, EditMetric
from mmhiper.evaluation.learned import compare_with_plain
from mmhiper.evaluation.lpips import LPIPS
from mmhiper.evaluation.pixels import MSE, PSNR, SSIM
from mmhiper.evaluation.similarity import (
    ClipIdentity,
    ClipScore,
    DinoIdentity,
    Identity,
    ImageNetIdentity,
)

__all__ = [
    'LPIPS',
    'MSE',
    'PSNR',
    'SSIM',
    'ClipFeatures',
    'ClipIdentity',
    'ClipScore',
    'DinoIdentity',
    'EditMetric',
    'Edited',
    'Identity',
    'ImageNetIdentity',
    'StructureDistance',
    'compare_with_plain',
]
