"""Noise processes: what stands between a picture and pure noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from mmhiper.models.loss_weights import snr_weights
from mmhiper.models.schedulers import (
    DDIM,
    FLOW,
    make_flow_scheduler,
    make_scheduler,
    split_type,
)
from mmhiper.utils.errors import UserError


class NoiseProcess(Protocol):
    """What a backbone's noise must answer.

    Times are in the units that :meth:`Backbone.predict` takes.

    Attributes:
        samples_with: The scheduler of diffusers for pictures.
    """

    samples_with: str

    @property
    def num_timesteps(self) -> int:
        """T; times lie in [0, T]."""

    def draw_time(self, generator: torch.Generator) -> Tensor:
        """Draws the time of a training step, (1,), as the model's own did."""

    def spread_time(self, number: int, count: int) -> Tensor:
        """The time, (1,), of one of ``count`` draws spread over all times."""

    def time_at(self, share: float) -> Tensor:
        """The time, (1,), below which that share of those of training lie."""

    def add_noise(
        self, latents: Tensor, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Noises clean latents, (B, C, h, w), at times (B,)."""

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the model should put out for them, (B, C, h, w)."""

    def loss_weights(
        self, times: Tensor, min_snr_gamma: float | None, debiased: bool
    ) -> Tensor:
        """What the error at times (B,) counts, (B,) fp32."""

    def make_sampler(self, scheduler: str | Mapping | None = None) -> Any:
        """Makes a scheduler of diffusers; None takes ``samples_with``."""


class Diffusion:
    """Denoising diffusion in discrete steps (arXiv 2006.11239).

    Args:
        config: The scheduler config of the model, of any class.
        changes: ``type``, the scheduler that pictures are sampled with, and
            values of its config.
        backbone: Whose it is, for messages.

    Attributes:
        scheduler: Noises pictures in training, and inverts them, whatever
            samples.

    Raises:
        ValueError: If there is no such scheduler, or it has no such value.
    """

    def __init__(
        self, config: Mapping[str, Any], changes: Mapping, backbone: str
    ) -> None:
        self.samples_with, values = split_type(changes)
        self._config = {**config, **values}
        self._backbone = backbone
        self.scheduler = self.make_sampler(DDIM)

    @property
    def num_timesteps(self) -> int:
        """How many timesteps a training has, T."""
        steps: int = self.scheduler.config.num_train_timesteps
        return steps

    @property
    def prediction_type(self) -> str:
        """What the model puts out: 'epsilon', 'v_prediction' or 'sample'."""
        kind: str = self.scheduler.config.prediction_type
        return kind

    def draw_time(self, generator: torch.Generator) -> Tensor:
        """Draws a timestep, all alike.

        Args:
            generator: On the CPU.

        Returns:
            (1,) integer in [0, T).
        """
        return torch.randint(self.num_timesteps, (1,), generator=generator)

    def spread_time(self, number: int, count: int) -> Tensor:
        """One of some timesteps that are spread evenly.

        Args:
            number: Which, in [0, ``count``).
            count: Of how many.

        Returns:
            (1,) integer in [0, T).
        """
        middle = (2 * number + 1) * self.num_timesteps // (2 * count)
        return torch.tensor([middle])

    def time_at(self, share: float) -> Tensor:
        """A quantile of the timesteps of training.

        Args:
            share: In [0, 1]; 0 is the least noise.

        Returns:
            (1,) integer in [0, T).
        """
        last = self.num_timesteps - 1
        return torch.tensor([min(int(share * self.num_timesteps), last)])

    def make_sampler(self, scheduler: str | Mapping | None = None) -> Any:
        """Makes a scheduler with the noise schedule of this model.

        Args:
            scheduler: The name of a class of diffusers, or a mapping with it
                as ``type`` and values of its config. Defaults to what the
                config of this model names, and that to DDIM.

        Returns:
            A new scheduler.

        Raises:
            ValueError: If there is no such scheduler, or it has no such value.
        """
        return make_scheduler(self._config, scheduler or self.samples_with)

    def add_noise(
        self, latents: Tensor, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Noises clean latents (arXiv 2006.11239, eq. 4).

        Args:
            latents: (B, C, h, w), scaled.
            noise: (B, C, h, w), unit normal.
            times: (B,) integers, on any device.

        Returns:
            (B, C, h, w).
        """
        times = times.to(latents.device, non_blocking=True)
        return self.scheduler.add_noise(latents, noise, times)

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the model should put out for noised latents.

        Args:
            latents: (B, C, h, w), scaled.
            noise: (B, C, h, w), unit normal.
            times: (B,) integers, on any device.

        Returns:
            (B, C, h, w): the noise for models that predict epsilon, the
            velocity (arXiv 2202.00512, app. D) for v-prediction.

        Raises:
            ValueError: If the model predicts something else.
        """
        kind = self.prediction_type
        if kind == 'epsilon':
            return noise
        if kind == 'v_prediction':
            times = times.to(latents.device, non_blocking=True)
            return self.scheduler.get_velocity(latents, noise, times)
        raise UserError(
            "The scheduler's `prediction_type` must be 'epsilon' or "
            f"'v_prediction' to train with, but {self._backbone!r} has "
            f'{kind!r}.'
        )

    def loss_weights(
        self, times: Tensor, min_snr_gamma: float | None, debiased: bool
    ) -> Tensor:
        """What the error at a timestep counts, see :func:`snr_weights`.

        Args:
            times: (B,) integers.
            min_snr_gamma: None weighs all alike.
            debiased: Whether to weigh by 1 / sqrt(SNR).

        Returns:
            (B,) fp32, on the CPU.
        """
        return snr_weights(
            self.scheduler.alphas_cumprod,
            times,
            self.prediction_type,
            min_snr_gamma,
            debiased,
        )

    def epsilon_of(
        self, output: Tensor, latents: Tensor, timestep: Tensor
    ) -> Tensor:
        """The noise that an output of the model stands for.

        An output means something at the timestep that the model was asked
        at, whatever noise the latents really hold.

        Args:
            output: Of :meth:`Backbone.predict`, (B, C, h, w).
            latents: What it was given, (B, C, h, w).
            timestep: At which timestep, one integer.

        Returns:
            epsilon, (B, C, h, w).
        """
        kind = self.prediction_type
        if kind == 'epsilon':
            return output
        kept = self.scheduler.alphas_cumprod[timestep]  # abar_t
        if kind == 'v_prediction':
            return kept.sqrt() * output + (1 - kept).sqrt() * latents
        # the clean latents
        return (latents - kept.sqrt() * output) / (1 - kept).sqrt()


class Flow:
    """A straight line from a picture to noise (arXiv 2403.03206, eq. 13).

    At time sigma in (0, 1] the latents are ``(1 - sigma) z + sigma eps``, and
    the model puts out the velocity ``eps - z``. It is asked at T sigma.
    Training draws sigma from a logit-normal distribution (sec. 3.1), shifted
    towards noise as the model's own schedule is (sec. 5.3.2).

    Args:
        config: The scheduler config of the model.
        changes: See :class:`Diffusion`.

    Raises:
        ValueError: If there is no such scheduler, it has no such value, or its
            shift depends on the size of a picture.
    """

    def __init__(self, config: Mapping[str, Any], changes: Mapping) -> None:
        self.samples_with, values = split_type(changes, FLOW)
        self._config = {**config, **values}
        if self._config.get('use_dynamic_shifting'):
            raise UserError(
                'A schedule that is shifted by the size of a picture is not '
                'known here. Set `sd.scheduler=dict(use_dynamic_shifting='
                'False, shift=3.0)`, with the shift of the size you draw.'
            )
        # all times of training, T sigma, falling
        self._schedule: Tensor = self.make_sampler(FLOW).timesteps

    def make_sampler(self, scheduler: str | Mapping | None = None) -> Any:
        """See :meth:`Diffusion.make_sampler`; of schedulers for flows."""
        return make_flow_scheduler(
            self._config, scheduler or self.samples_with
        )

    def draw_time(self, generator: torch.Generator) -> Tensor:
        """Draws a time, logit-normal.

        Args:
            generator: On the CPU.

        Returns:
            (1,) in (0, T].
        """
        return self._at(torch.randn(1, generator=generator))

    def spread_time(self, number: int, count: int) -> Tensor:
        """One of some quantiles of the times of training, (1,)."""
        share = torch.tensor([(2 * number + 1) / (2 * count)])
        return self._at(torch.special.ndtri(share))

    def time_at(self, share: float) -> Tensor:
        """A quantile of the times of training, (1,); 0 is the least noise."""
        # the schedule falls, so the largest logit is the least noise
        noisier = torch.tensor([1 - share], dtype=torch.float64)
        return self._at(torch.special.ndtri(noisier))

    @property
    def num_timesteps(self) -> int:
        """How many times a training has, T."""
        return len(self._schedule)

    def _at(self, logit: Tensor) -> Tensor:
        """The time that a normal number stands for."""
        count = self.num_timesteps
        index = (logit.sigmoid() * count).long().clamp(max=count - 1)
        return self._schedule[index]

    def _sigma(self, times: Tensor, latents: Tensor) -> Tensor:
        """The share of noise at times (B,), (B, 1, 1, 1)."""
        times = times.to(latents.device, non_blocking=True)
        return (times / self.num_timesteps).view(-1, 1, 1, 1)

    def add_noise(
        self, latents: Tensor, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Noises clean latents (eq. 13), (B, C, h, w)."""
        sigma = self._sigma(times, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The velocity, (B, C, h, w), the same at all times."""
        return noise - latents

    def loss_weights(
        self, times: Tensor, min_snr_gamma: float | None, debiased: bool
    ) -> Tensor:
        """What the error of a velocity counts, see :func:`snr_weights`.

        The noise that a velocity v implies is ``z_t + (1 - sigma) v``: the
        weight of its squared error is ``(1 - sigma)^2`` times that of the
        noise, and SNR is ``((1 - sigma) / sigma)^2``.

        Args:
            times: (B,) in (0, T].
            min_snr_gamma: None weighs all alike.
            debiased: Whether to weigh by 1 / sqrt(SNR).

        Returns:
            (B,) fp32, on the CPU.
        """
        if min_snr_gamma is None and not debiased:
            return torch.ones(len(times))
        sigma = times.cpu().double() / self.num_timesteps
        if debiased:
            return (sigma * (1 - sigma)).float()
        assert min_snr_gamma is not None
        inverse = (sigma / (1 - sigma)).square()  # infinite in pure noise
        weights = (min_snr_gamma * inverse).clamp(max=1)
        return (weights * (1 - sigma).square()).float()
