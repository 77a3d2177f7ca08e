"""Frozen models, one class per family, of one surface."""

from mmhiper.models.backbones.base import Backbone
from mmhiper.models.backbones.latent_diffusion import LatentDiffusion
from mmhiper.models.backbones.noise import Diffusion
from mmhiper.models.backbones.stable_diffusion import (
    StableDiffusion,
    StableDiffusionXL,
)

__all__ = [
    'Backbone',
    'Diffusion',
    'LatentDiffusion',
    'StableDiffusion',
    'StableDiffusionXL',
]
