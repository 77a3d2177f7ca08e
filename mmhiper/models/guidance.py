"""How far a prediction is guided, and what a backbone says about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmhiper.models.loading import backbone_folder
from mmhiper.models.sampling import Denoise, guided
from mmhiper.models.schedulers import OF_DISTILLED_MODELS
from mmhiper.utils.arguments import is_number
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import JSON_DAMAGE, printable, reading
from mmhiper.utils.text_files import read_text

# What the pipelines of diffusers take where nobody says a scale.
OF_STABLE_DIFFUSION = 7.5
OF_XL = 5.0
OF_STABLE_DIFFUSION_3 = 7.0
# What Textual Inversion draws with; the pipeline of diffusers takes none.
OF_LATENT_DIFFUSION = 10.0
NONE = 1.0  # the text alone
# In the folder of a model that has a scale of its own. It stands in no config
# of diffusers, which would warn of a key it does not know.
FILE = 'guidance.json'
LARGEST = 100.0  # that a folder may ask for


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (arXiv 2207.12598), and what tames it.

    Attributes:
        scale: How far from the other text; none up to 1.
        rescale: Share, in [0, 1], of the guided prediction that is brought
            back to the standard deviation of the unguided one: phi of arXiv
            2305.08891, sec. 3.4, which takes 0.7.
        interval: ``(low, high)``: guidance acts where ``low < sigma <= high``
            (arXiv 2404.07724, eq. 5), elsewhere the text alone decides. Sigma
            is the paper's noise level, that of the noise to that of the clean
            latents, ``sqrt((1 - alpha_bar) / alpha_bar)``: from 0.03 to 14.6
            in Stable Diffusion, whatever the scheduler and the number of
            steps. The paper takes (0.28, 5.42) for Stable Diffusion XL.

    Raises:
        ValueError: If a value is out of its range.
    """

    scale: float
    rescale: float = 0.0
    interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not is_number(self.scale):
            raise UserError(
                '`guidance_scale` must be a number (none up to 1, 7.5 is '
                f'usual for Stable Diffusion), but got {self.scale!r}.'
            )
        if not (is_number(self.rescale) and 0 <= self.rescale <= 1):
            raise UserError(
                '`guidance_rescale` is a share and must be in [0, 1], but got '
                f'{self.rescale!r}.'
            )
        if self.interval is not None and not _is_interval(self.interval):
            raise UserError(
                '`guidance_interval` must be a pair (low, high) of noise '
                'levels with 0 <= low < high, such as (0.28, 5.42), but got '
                f'{self.interval!r}.'
            )

    def plain(self) -> dict[str, Any]:
        """The options of ``infer`` that mean the same, for records.

        Returns:
            Plain data; without what is off.
        """
        options: dict[str, Any] = dict(guidance_scale=float(self.scale))
        if self.rescale:
            options['guidance_rescale'] = float(self.rescale)
        if self.interval is not None:
            options['guidance_interval'] = [float(s) for s in self.interval]
        return options

    @property
    def acts(self) -> bool:
        """Whether anything is to be moved away from."""
        return self.scale > NONE

    def apply(self, both: Denoise, alone: Denoise, scheduler: Any) -> Denoise:
        """Guides a prediction.

        Args:
            both: See :func:`guided`.
            alone: ``(latents (B, 4, h, w), t) -> (B, 4, h, w)``, conditioned
                on the texts alone; half the work of ``both``.
            scheduler: What is sampled with; it says which noise level a
                timestep is.

        Returns:
            ``(latents (B, 4, h, w), t) -> (B, 4, h, w)``.
        """
        if not self.acts:
            return alone
        moved = guided(both, self.scale, self.rescale)
        if self.interval is None:
            return moved
        low, high = self.interval

        def denoise(latents: Tensor, timestep: Tensor) -> Tensor:
            within = low < noise_level(scheduler, timestep) <= high
            return (moved if within else alone)(latents, timestep)

        return denoise


def noise_level(scheduler: Any, timestep: Tensor | float) -> float:
    """Sigma at a timestep, in units of the clean latents.

    Args:
        scheduler: A scheduler of diffusers.
        timestep: One number. Some schedulers visit fractional ones; between
            two timesteps the logarithm of sigma is linear, as those schedulers
            have it.

    Returns:
        ``sqrt((1 - alpha_bar) / alpha_bar)``; 4096 where no signal is left.
    """
    if not hasattr(scheduler, 'alphas_cumprod'):  # of a flow
        share = float(timestep) / scheduler.config.num_train_timesteps
        return share / max(1 - share, 2.0**-12)
    kept = scheduler.alphas_cumprod
    position = min(max(float(timestep), 0.0), len(kept) - 1.0)
    below = math.floor(position)
    share = position - below
    sigmas = [
        math.sqrt((1 - alpha) / alpha)
        for alpha in (
            # a schedule of zero terminal signal has an infinite one
            max(float(kept[min(index, len(kept) - 1)]), 2.0**-24)
            for index in (below, below + 1)
        )
    ]
    return sigmas[0] ** (1 - share) * sigmas[1] ** share


def own_scale(
    backbone: str,
    unet: torch.nn.Module,
    scheduler: Mapping[str, Any],
    sampler: str,
    usual: float,
) -> float:
    """The guidance scale that a backbone is drawn with unless told otherwise.

    What its folder says in ``guidance.json``; none for a model that is
    distilled; else what is usual in its family.

    Args:
        backbone: As ``Backbone.backbone``.
        unet: Its U-Net. One with ``time_cond_proj_dim`` was distilled to take
            its guidance as a number.
        scheduler: The config in its folder, whose class tells a model that was
            distilled for it.
        sampler: The scheduler that a config samples it with, which does so
            too.
        usual: Of the family.

    Returns:
        The scale.

    Raises:
        ValueError: If the folder says something that is none.

    Note:
        Turbo and Lightning models look like those they were made of, down to
        their schedulers: ask for 1 by number, or put a ``guidance.json``
        into their folders.
    """
    folder = backbone_folder(backbone)
    if folder is not None and (folder / FILE).exists():
        return read_scale(folder / FILE)
    names = (sampler, scheduler.get('_class_name'))
    config: Any = unet.config
    if config.get('time_cond_proj_dim') is not None or any(
        name in OF_DISTILLED_MODELS for name in names
    ):
        return NONE
    return usual


def read_scale(path: Path) -> float:
    """Reads what a folder says about its guidance.

    Args:
        path: ``{"guidance_scale": 3.0}`` as JSON.

    Returns:
        From 1 to 100.

    Raises:
        ValueError: If it says anything else.
    """
    remedy = 'Mend or delete it.'
    text = read_text(path, 'the guidance of a model')
    with reading(path, 'is no JSON', remedy, JSON_DAMAGE):
        content = json.loads(text)
    scale: Any = None
    if isinstance(content, dict) and list(content) == ['guidance_scale']:
        scale = content['guidance_scale']
    if not (is_number(scale) and NONE <= scale <= LARGEST):
        raise FileError(
            f'{str(path)!r} must hold {{"guidance_scale": S}} with S from '
            f'{NONE:g} (none) to {LARGEST:g}, but holds '
            f'{printable(repr(content)[:80])}. {remedy}'
        )
    return float(scale)


def _is_interval(values: Any) -> bool:
    """Whether it is a pair of noise levels."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        return False
    if len(values) != 2 or not all(map(is_number, values)):
        return False
    return bool(0 <= values[0] < values[1])
