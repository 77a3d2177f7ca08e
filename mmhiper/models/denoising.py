"""A training step by denoising: what is drawn for it, what its errors count.

Noise and timestep of a picture come from (seed, picture, iteration) alone:
neither from what else is in the batch nor from which process holds it, and a
resumed run draws what an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmhiper.models.backbones.base import Backbone
from mmhiper.models.backbones.noise import NoiseProcess
from mmhiper.models.conditioning import Conditioning
from mmhiper.utils.errors import UserError
from mmhiper.utils.randomness import generator_of

# How the times of the draws of a picture in one step lie to each other.
RANDOM, STRATIFIED, ANTITHETIC = 'random', 'stratified', 'antithetic'
# A deterministic pipeline has one entry per picture; one with random flips or
# crops may produce ever new pictures, which must not pile up.
MAX_CACHED = 256


class LatentCache:
    """Latents of pictures, each encoded when it is first seen in a run."""

    def __init__(self, sd: Backbone) -> None:
        self._sd = sd
        self._kept: dict[tuple[int, str], Tensor] = {}

    def encode(
        self, pixels: Tensor, sample: BaseDataElement, seed: int
    ) -> Tensor:
        """A sample of a picture's posterior; of seed and picture alone.

        Args:
            pixels: (3, S, S) in [-1, 1].
            sample: With ``image_key``.
            seed: The seed of the run.

        Returns:
            (1, 4, h, w) fp32.

        Raises:
            ValueError: If the picture has no ``image_key``.
        """
        key = sample.get('image_key')
        if key is None:
            raise UserError(
                'A data element needs `image_key`, which the data '
                'preprocessor of the editor sets: pass batches through '
                '`editor.data_preprocessor(...)` first.'
            )
        if (seed, key) not in self._kept:
            if len(self._kept) >= MAX_CACHED:
                self._kept.clear()
            self._kept[seed, key] = self._sd.encode_image(
                pixels[None], generator_of(seed, key, 'posterior')
            )
        return self._kept[seed, key]

    def values(self) -> list[Tensor]:
        """All that are kept, (1, 4, h, w) each, in the order of encoding."""
        return list(self._kept.values())

    def clear(self) -> None:
        """Forgets all; where the model is moved they lie on its old device."""
        self._kept.clear()


@dataclass(frozen=True)
class StepDraws:
    """How often a step noises each picture, and how much.

    Attributes:
        per_step: Draws of noise and time for each picture, D.
        times: How those of a step lie to each other: 'random', each by itself;
            'stratified', one in each of D equal parts of the range;
            'antithetic', in pairs that mirror each other in it. The mean over
            all draws stays what it is, its variance falls.
        within: The range, as shares of the times of training, ``(low, high)``:
            0 is the least noise, 1 the most.

    Raises:
        ValueError: If a value is out of its range.
    """

    per_step: int = 1
    times: str = RANDOM
    within: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.per_step < 1:
            raise UserError(
                '`draws_per_step` must be at least 1, but got '
                f'{self.per_step}.'
            )
        kinds = (RANDOM, STRATIFIED, ANTITHETIC)
        if self.times not in kinds:
            raise UserError(
                f'`draw_times` must be one of {", ".join(kinds)}, but got '
                f'{self.times!r}.'
            )
        if self.times == STRATIFIED and self.per_step == 1:
            raise UserError(
                "`draw_times='stratified'` spreads the draws of a step: give "
                '`draws_per_step` of 2 or more.'
            )
        if self.times == ANTITHETIC and self.per_step % 2:
            raise UserError(
                "`draw_times='antithetic'` makes pairs: `draws_per_step` must "
                f'be even, but got {self.per_step}.'
            )
        if len(self.within) != 2 or not (
            0 <= self.within[0] < self.within[1] <= 1
        ):
            raise UserError(
                '`time_range` must be a pair (low, high) of shares of the '
                'noise with 0 <= low < high <= 1, such as (0, 0.7), but got '
                f'{self.within!r}.'
            )

    @property
    def usual(self) -> bool:
        """Whether each time is drawn as in the model's own training."""
        return self.times == RANDOM and tuple(self.within) == (0, 1)

    def times_of(
        self, generators: Sequence[torch.Generator], process: NoiseProcess
    ) -> list[Tensor]:
        """Draws the times of one picture.

        Args:
            generators: One for each draw, D.
            process: Of the model.

        Returns:
            D times (1,).
        """
        if self.usual:
            return [process.draw_time(each) for each in generators]
        low, high = self.within
        shares: list[float] = []
        for number, generator in enumerate(generators):
            if self.times == ANTITHETIC and number % 2:
                shares.append(low + high - shares[-1])
                continue
            drawn = float(
                torch.rand((), generator=generator, dtype=torch.float64)
            )
            if self.times == STRATIFIED:
                drawn = (number + drawn) / self.per_step
            shares.append(low + (high - low) * drawn)
        return [process.time_at(share) for share in shares]


@dataclass(frozen=True)
class Draw:
    """What a step denoises.

    Attributes:
        latents: Clean ones, (B, 4, h, w).
        noise: Likewise, on the same device.
        timesteps: (B,) on the CPU, see :class:`NoiseProcess`.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor


def draw_step(
    latents: Sequence[Tensor],
    keys: Sequence[str],
    run: tuple[int, int],
    process: NoiseProcess,
    noise_offset: float = 0.0,
    draws: StepDraws = StepDraws(),
) -> Draw:
    """Draws noise and timesteps of a training step.

    Args:
        latents: B times (1, 4, h, w).
        keys: B ``image_key``.
        run: Seed and iteration.
        process: Of the model; it draws the timesteps.
        noise_offset: Share of one more normal number for each picture and
            channel.
        draws: How many for each picture, and which; by default one.

    Returns:
        Of B pictures, D times each, those of a picture one after another.
    """
    noises, timesteps = [], []
    for z, key in zip(latents, keys, strict=True):
        generators = _generators(run, key, draws.per_step)
        timesteps += draws.times_of(generators, process)
        for generator in generators:
            noise = torch.randn(z.shape, generator=generator)
            if noise_offset:
                # (1, 4, 1, 1); drawn last: the rest is as without it
                offset = torch.randn((*z.shape[:2], 1, 1), generator=generator)
                noise = noise + noise_offset * offset
            noises.append(noise)
    clean = torch.cat(list(latents)).repeat_interleave(draws.per_step, 0)
    noise = torch.cat(noises).to(clean.device, non_blocking=True)
    return Draw(clean, noise, torch.cat(timesteps))


def _generators(
    run: tuple[int, int], key: str, count: int
) -> list[torch.Generator]:
    """One for each draw of a picture."""
    seed, iteration = run
    # the first is that of a step with one draw
    more = [
        generator_of(seed, key, iteration, 'draw', number)
        for number in range(1, count)
    ]
    return [generator_of(seed, key, iteration), *more]


def draw_fixed(
    latents: Tensor,
    key: str,
    seed: int,
    number: int,
    count: int,
    process: NoiseProcess,
) -> Draw:
    """One of some draws that are the same at each iteration.

    Args:
        latents: (1, 4, h, w).
        key: The ``image_key``.
        seed: Of the run.
        number: Which of them, in [0, ``count``).
        count: How many; their timesteps are spread evenly.
        process: Of the model.

    Returns:
        Of one picture.
    """
    generator = generator_of(seed, key, 'fixed', number)
    noise = torch.randn(latents.shape, generator=generator)
    return Draw(
        latents,
        noise.to(latents.device, non_blocking=True),
        process.spread_time(number, count),
    )


def denoise(
    sd: Backbone, draw: Draw, conditioning: Conditioning
) -> tuple[Tensor, Tensor]:
    """Noises latents and has the model undo it.

    Args:
        draw: Of B pictures.
        conditioning: B texts; gradients reach them.

    Returns:
        Output and target, both (B, 4, h, w) fp32.
    """
    sd.lay_out(torch.channels_last)
    drawn = (draw.latents, draw.noise, draw.timesteps)
    noised = sd.process.add_noise(*drawn)
    output = sd.predict(noised, draw.timesteps, conditioning)
    return output, sd.process.target(*drawn)


def masked_means(
    output: Tensor, target: Tensor, masks: Sequence[Tensor | None]
) -> Tensor:
    """The mean squared error of each picture, over its subject.

    Args:
        output: (B, 4, h, w) fp32.
        target: Likewise.
        masks: B times (S, S) in [0, 1]: a latent counts by the share of its
            pixels that is subject. None counts all; of an empty mask the mean
            is 0.

    Returns:
        (B,).
    """
    errors = (output - target).square()
    means = errors.flatten(1).mean(1)
    if all(mask is None for mask in masks):
        return means
    result = []
    for error, mean, mask in zip(errors, means, masks, strict=True):
        if mask is not None:
            # (S, S) -> (1, h, w); all channels have the same weights
            weights = F.adaptive_avg_pool2d(mask[None], error.shape[-2:])
            area = weights.sum().clamp_min(1e-6)
            mean = (error.mean(0) * weights[0]).sum() / area
        result.append(mean)
    return torch.stack(result)
