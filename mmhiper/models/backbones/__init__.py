"""Frozen models, one class per family, of one surface."""

from mmhiper.models.backbones.base import Backbone
from mmhiper.models.backbones.latent_diffusion import LatentDiffusion
from mmhiper.models.backbones.noise import Diffusion, Flow
from mmhiper.models.backbones.stable_diffusion import (
    StableDiffusion,
    StableDiffusionXL,
)
from mmhiper.models.backbones.stable_diffusion_3 import StableDiffusion3

__all__ = [
    'Backbone',
    'Diffusion',
    'Flow',
    'LatentDiffusion',
    'StableDiffusion',
    'StableDiffusion3',
    'StableDiffusionXL',
]
