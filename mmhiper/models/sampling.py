"""Sampling loops as functions: guidance is a closure, side effects are
callbacks. Only torch is needed; schedulers come as objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmhiper.utils.errors import UserError
from mmhiper.utils.randomness import Generators

Denoise = Callable[[Tensor, Tensor], Tensor]


def guided(denoise: Denoise, scale: float, rescale: float = 0.0) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6) as a closure.

    Args:
        denoise (callable): ``(latents (2B, 4, h, w), t) -> (2B, 4, h, w)``,
            conditioned on B unconditional texts followed by B texts.
        scale (float): Guidance scale; 1 is the text alone.
        rescale (float): Share in [0, 1] that is rescaled, see
            :func:`rescaled`.

    Returns:
        callable: ``(latents (B, 4, h, w), t) -> (B, 4, h, w)``, with one call
        of ``denoise`` per call.
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
        moved (Tensor): Guided predictions, (B, 4, h, w).
        with_text (Tensor): Unguided ones, whose standard deviations the
            guided ones get, (B, 4, h, w).
        share (float): Of the rescaled prediction in what is returned: phi of
            eq. 16, in [0, 1].

    Returns:
        Tensor: (B, 4, h, w).
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
) -> Tensor:
    """Walks a scheduler's timesteps (arXiv 2010.02502, eq. 12, for DDIM).

    The same loop samples with ``DDIMScheduler`` or any other, and inverts
    with ``DDIMInverseScheduler``.

    Args:
        denoise (callable): ``(latents, t) -> model output``, both
            (B, 4, h, w), the output in the scheduler's prediction type; ``t``
            is a scalar on the CPU and may be fractional.
        latents (Tensor): Where to start, (B, 4, h, w): unit normal noise, or
            clean latents to be inverted.
        scheduler: A scheduler of diffusers; its timesteps are set here.
        num_steps (int): Number of steps.
        callback (callable, optional): Called after each step with the number
            of steps done, the timestep and the latents, which it may change
            in place. Schedulers of second order call ``denoise`` twice in a
            step.
        eta (float): 0 is deterministic DDIM, 1 adds as much noise as DDPM.
        generator (torch.Generator or list of them, optional): Source of
            noise, one for the batch or one per sample.

    Returns:
        Tensor: The latents after the last step, (B, 4, h, w).

    Raises:
        ValueError: If ``eta`` is not 0 and the scheduler does not know it.
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
    # schedulers of flows have no scales: their noise and input are unit ones
    latents = latents * getattr(scheduler, 'init_noise_sigma', 1.0)
    scale = getattr(scheduler, 'scale_model_input', lambda z, t: z)
    last = len(scheduler.timesteps)
    for calls, timestep in enumerate(scheduler.timesteps, start=1):
        scaled = scale(latents, timestep)
        latents = scheduler.step(
            denoise(scaled, timestep),
            timestep,
            latents,
            return_dict=False,
            **noise_options,
        )[0]
        if callback is not None and (
            calls % scheduler.order == 0 or calls == last
        ):
            callback(-(-calls // scheduler.order), timestep, latents)
    return latents
