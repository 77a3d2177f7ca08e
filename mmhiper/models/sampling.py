"""Sampling loops as functions: guidance is a closure, side effects are
callbacks. Only torch is needed; schedulers come as objects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmhiper.utils.errors import UserError
from mmhiper.utils.randomness import Generators

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Start:
    """A picture that is drawn from, where noise alone is not.

    Its noise is that of a step on the way, from which the scheduler goes on:
    image-to-image (SDEdit, arXiv 2108.01073). Under a mask what is to stay is
    noised anew after each step, and laid over what was drawn.

    Attributes:
        picture: Clean latents, scaled, (B, C, h, w); pixels, (B, 3, H, W),
            before they are encoded.
        denoise: The share of the steps that is done, in (0, 1].
        mask: 1 where the picture may change, 0 where it stays, (B, 1, h, w);
            None lets all of it change.
    """

    picture: Tensor
    denoise: float
    mask: Tensor | None = None

    def __getitem__(self, part: slice) -> Start:
        """Some of the pictures."""
        mask = None if self.mask is None else self.mask[part]
        return Start(self.picture[part], self.denoise, mask)

    def repeat_interleave(self, repeats: int) -> Start:
        """Each picture several times, copies together."""
        mask = self.mask
        if mask is not None:
            mask = mask.repeat_interleave(repeats, 0)
        picture = self.picture.repeat_interleave(repeats, 0)
        return Start(picture, self.denoise, mask)

    def steps(self, num_steps: int) -> int:
        """How many of so many steps are done, rounded down.

        Raises:
            ValueError: If it is none.
        """
        steps = int(num_steps * self.denoise)
        if steps < 1:
            raise UserError(
                f'`denoise` {self.denoise:g} of {num_steps} steps is less '
                'than one. Take more of either.'
            )
        return steps

    def _begin(self, scheduler: Any, noise: Tensor, num_steps: int) -> Tensor:
        """The latents of the first step; earlier ones are struck out."""
        skipped = (num_steps - self.steps(num_steps)) * scheduler.order
        if hasattr(scheduler, 'set_begin_index'):
            scheduler.set_begin_index(skipped)
        if self.denoise == 1 and self.mask is not None:
            return noise * getattr(scheduler, 'init_noise_sigma', 1.0)
        first = scheduler.timesteps[skipped : skipped + 1]
        return _noised(
            scheduler, self.picture, noise, first.repeat(len(noise))
        )

    def _keep(
        self, scheduler: Any, latents: Tensor, noise: Tensor, next_: Tensor
    ) -> Tensor:
        """Latents with the picture, as noisy as they, where it stays."""
        if self.mask is None:
            return latents
        kept = self.picture
        if len(next_):  # else all is done
            kept = _noised(scheduler, kept, noise, next_)
        return (1 - self.mask) * kept + self.mask * latents


def _noised(
    scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Latents with noise, (B, C, h, w), as a scheduler has them on the way."""
    if hasattr(scheduler, 'scale_noise'):  # of a flow
        noised: Tensor = scheduler.scale_noise(latents, timesteps, noise)
        return noised
    return scheduler.add_noise(latents, noise, timesteps)


def guided(denoise: Denoise, scale: float, rescale: float = 0.0) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6) as a closure.

    Args:
        denoise: ``(latents (2B, 4, h, w), t) -> (2B, 4, h, w)``, conditioned
            on B unconditional texts followed by B texts.
        scale: Guidance scale; 1 is the text alone.
        rescale: Share in [0, 1] that is rescaled, see :func:`rescaled`.

    Returns:
        ``(latents (B, 4, h, w), t) -> (B, 4, h, w)``, with one call of
        ``denoise`` per call.
    """

    def denoise_guided(latents: Tensor, timestep: Tensor) -> Tensor:
        both = denoise(torch.cat([latents, latents]), timestep)
        without_text, with_text = both.chunk(2)
        moved = without_text + scale * (with_text - without_text)
        return rescaled(moved, with_text, rescale) if rescale else moved

    return denoise_guided


def rescaled(moved: Tensor, with_text: Tensor, share: float) -> Tensor:
    """Undoes the contrast that guidance adds (arXiv 2305.08891, sec. 3.4).

    Args:
        moved: Guided predictions, (B, 4, h, w).
        with_text: Unguided ones, whose standard deviations the guided ones
            get, (B, 4, h, w).
        share: Of the rescaled prediction in what is returned: phi of eq. 16,
            in [0, 1].

    Returns:
        (B, 4, h, w).
    """
    wanted, found = (
        each.std(dim=tuple(range(1, each.ndim)), keepdim=True)
        for each in (with_text, moved)
    )  # (B, 1, 1, 1)
    return share * (moved * (wanted / found)) + (1 - share) * moved


def run_scheduler(
    denoise: Denoise,
    latents: Tensor,
    scheduler: Any,
    num_steps: int,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    eta: float = 0.0,
    generator: Generators | None = None,
    start: Start | None = None,
) -> Tensor:
    """Walks a scheduler's timesteps (arXiv 2010.02502, eq. 12, for DDIM).

    The same loop samples with ``DDIMScheduler`` or any other, and inverts
    with ``DDIMInverseScheduler``.

    Args:
        denoise: ``(latents, t) -> model output``, both (B, 4, h, w), the
            output in the scheduler's prediction type; ``t`` is a scalar on the
            CPU and may be fractional.
        latents: Where to start, (B, 4, h, w): unit normal noise, or clean
            latents to be inverted.
        scheduler: A scheduler of diffusers; its timesteps are set here.
        num_steps: Number of steps.
        callback: Called after each step with the number of steps done, the
            timestep and the latents, which it may change in place. Schedulers
            of second order call ``denoise`` twice in a step.
        eta: 0 is deterministic DDIM, 1 adds as much noise as DDPM.
        generator: Source of noise, one for the batch or one per sample.
        start: Latents of B pictures to begin with, where ``latents`` is the
            noise that they get.

    Returns:
        The latents after the last step, (B, 4, h, w).

    Raises:
        ValueError: If ``eta`` is not 0 and the scheduler does not know it, or
            ``start`` leaves no step.
    """
    known = inspect.signature(scheduler.step).parameters
    if eta and 'eta' not in known:
        raise UserError(
            f'`eta` belongs to DDIM; {type(scheduler).__name__} does not '
            f'know it, but got {eta}.'
        )
    noise_options = {
        name: value
        for name, value in (('eta', eta), ('generator', generator))
        if name in known
    }
    # Not on the device: what a scheduler computes of a timestep are scalars,
    # and it asks for their values in each step.
    scheduler.set_timesteps(num_steps, device='cpu')
    timesteps = scheduler.timesteps
    noise = latents
    if start is None:
        # schedulers of flows have no scales: their noise and input are unit
        latents = noise * getattr(scheduler, 'init_noise_sigma', 1.0)
    else:
        latents = start._begin(scheduler, noise, num_steps)
        skipped = num_steps - start.steps(num_steps)
        timesteps = timesteps[skipped * scheduler.order :]
    scale = getattr(scheduler, 'scale_model_input', lambda z, t: z)
    last = len(timesteps)
    for calls, timestep in enumerate(timesteps, start=1):
        scaled = scale(latents, timestep)
        latents = scheduler.step(
            denoise(scaled, timestep),
            timestep,
            latents,
            return_dict=False,
            **noise_options,
        )[0]
        if start is not None:
            next_ = timesteps[calls : calls + 1]
            latents = start._keep(scheduler, latents, noise, next_)
        if callback is not None and (
            calls % scheduler.order == 0 or calls == last
        ):
            callback(-(-calls // scheduler.order), timestep, latents)
    return latents
