"""DDIM inversion: from a picture to the noise that it would come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmhiper.models.attention import Layer, MapStore, attention_control
from mmhiper.models.backbones import StableDiffusion
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.loading import quiet
from mmhiper.models.sampling import run_scheduler


@dataclass(frozen=True)
class Inversion:
    """What DDIM inversion leaves of a picture.

    Attributes:
        image_key: Names the picture.
        latents: z*_0 (the picture) .. z*_T (noise), each (1, 4, h, w).
        maps: Per step, (1, heads, P, M) by layer; entry k was seen on the way
            from z*_k to z*_{k+1}.
    """

    image_key: str
    latents: list[Tensor]
    maps: list[dict[str, Tensor]]


@torch.no_grad()
def invert(
    sd: StableDiffusion,
    pixels: Tensor,
    image_key: str,
    text: Conditioning,
    num_steps: int,
    layers: Sequence[Layer],
    kept: Sequence[Layer] = (),
) -> Inversion:
    """Inverts a picture at guidance 1 (arXiv 2211.09794, sec. 3.2).

    Args:
        sd: The frozen model, with controllable attention.
        pixels: (1, 3, S, S) in [-1, 1].
        image_key: Names it.
        text: What it shows, one text.
        num_steps: DDIM steps T.
        layers: All attention of the U-Net at this size.
        kept: Cross-attention whose maps are kept.

    Returns:
        Of the mean of the picture's posterior.

    Note:
        What the U-Net says is taken at the timestep that it was asked at.
        ``DDIMInverseScheduler`` would take other outputs than epsilon at the
        level of the latents, which is one step below.
    """
    from diffusers import DDIMInverseScheduler

    store = MapStore(kept)
    latents = [sd.encode_image(pixels)]
    maps: list[dict[str, Tensor]] = []

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        return sd.process.epsilon_of(sd.predict(z, t, text), z, t)

    def keep(done: int, t: Tensor, z: Tensor) -> None:
        latents.append(z)
        maps.append(dict(store.maps))

    with quiet():  # the other scheduler does not know all its values
        inverse = DDIMInverseScheduler.from_config(
            sd.scheduler.config, prediction_type='epsilon'
        )
    with attention_control(sd.attention, store, layers=layers):
        run_scheduler(denoise, latents[0], inverse, num_steps, keep)
    return Inversion(image_key, latents, maps)
