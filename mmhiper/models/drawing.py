"""Pictures of a conditioning: from noise, by a scheduler, under guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.guidance import Guidance
from mmhiper.models.memory import pictures_at_once
from mmhiper.models.sampling import Start, run_scheduler
from mmhiper.utils.errors import UserError
from mmhiper.utils.progress import progress_bar
from mmhiper.utils.randomness import Generators, check_generators, draw_noise


def latent_shape(
    sd: Backbone, height: int | None = None, width: int | None = None
) -> tuple[int, int, int]:
    """The shape of one picture's latents, its size checked.

    Args:
        height: In pixels, by default the model's own.
        width: Likewise.

    Returns:
        (4, h, w).

    Raises:
        ValueError: If a side is no multiple of ``vae_factor``.
    """
    height = sd.image_size if height is None else height
    width = sd.image_size if width is None else width
    factor = sd.vae_factor
    if height < 1 or width < 1 or height % factor or width % factor:
        raise UserError(
            f'`height` and `width` must be multiples of {factor}, but '
            f'got {height} and {width}.'
        )
    return sd.latent_shape(height, width)


def same_noise(sd: Backbone, count: int, seed: int) -> Tensor:
    """Noise for pictures that differ by their conditioning alone.

    Args:
        count: Pictures B.
        seed: Of the noise.

    Returns:
        (B, 4, h, w), B times the same.
    """
    shape = latent_shape(sd)
    noise = draw_noise((1, *shape), torch.Generator().manual_seed(seed))
    return noise.expand(count, *shape)


@torch.no_grad()
def draw_latents(
    sd: Backbone,
    conditioning: Conditioning,
    guidance: Guidance,
    negative: Conditioning | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
    num_inference_steps: int = 50,
    eta: float = 0.0,
    generator: Generators | None = None,
    latents: Tensor | None = None,
    seed: int = 1,
    scheduler: str | dict[str, Any] | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    start: Start | None = None,
) -> Tensor:
    """Draws pictures of a conditioning, up to the autoencoder.

    Args:
        conditioning: B texts.
        guidance: How far they are followed.
        negative: B texts to move away from, by default the empty text.
        height: In pixels, by default the model's own.
        width: Likewise.
        num_inference_steps: Steps of the scheduler.
        eta: Noise added per step, in [0, 1].
        generator: Randomness.
        latents: Noise to start from, (B, 4, h, w).
        seed: Where no generator is given: picture i draws from one of its own,
            seeded with ``seed + i``.
        scheduler: See :meth:`Diffusion.make_sampler`.
        callback: See :func:`run_scheduler`.
        start: B pictures to begin with, (B, 3, H, W) in [-1, 1].

    Returns:
        (B, 4, h, w) fp32.

    Raises:
        ValueError: If sizes or shapes do not fit.
    """
    sampler = sd.process.make_sampler(scheduler)
    count = len(conditioning)
    shape = (count, *latent_shape(sd, height, width))
    if generator is None:
        generator = [
            torch.Generator().manual_seed(seed + i) for i in range(count)
        ]
    if start is not None:  # first, as the pipelines of diffusers
        start = _encode(sd, start, generator)
    if latents is None:
        latents = draw_noise(shape, generator)
    elif latents.shape != shape:
        raise UserError(
            f'`latents` must have the shape {shape}, but got '
            f'{tuple(latents.shape)}.'
        )
    sd.lay_out(torch.contiguous_format)
    if negative is None:
        negative = sd.encode_nothing(count)
    both = Conditioning.cat([negative, conditioning])
    return run_scheduler(
        guidance.apply(
            partial(sd.predict, conditioning=both),
            partial(sd.predict, conditioning=conditioning),
            sampler,
        ),
        latents.to(sd.device).float(),
        sampler,
        num_inference_steps,
        callback=callback,
        eta=eta,
        generator=generator,
        start=start,
    )


def _encode(sd: Backbone, start: Start, generator: Generators) -> Start:
    """Pixels to latents, each drawn by the generator of its picture."""
    pixels, mask = start.picture, start.mask
    check_generators(generator, len(pixels))
    if isinstance(generator, torch.Generator):
        latents = sd.encode_image(pixels, generator)
    else:
        latents = torch.cat(
            [
                sd.encode_image(each, own)
                for each, own in zip(pixels.split(1), generator, strict=True)
            ]
        )
    mask = None if mask is None else mask.to(latents)
    return Start(latents, start.denoise, mask)


@torch.no_grad()
def draw(
    sd: Backbone,
    conditioning: Conditioning,
    guidance: Guidance,
    negative: Conditioning | None = None,
    **options: Any,
) -> Tensor:
    """Draws pictures of a conditioning.

    Args:
        conditioning: B texts.
        guidance: How far they are followed.
        negative: See :func:`draw_latents`.
        **options: Likewise.

    Returns:
        (B, 3, H, W) in [-1, 1] fp32.

    Raises:
        ValueError: If sizes or shapes do not fit.
    """
    latents = draw_latents(sd, conditioning, guidance, negative, **options)
    return sd.decode(latents).clamp(-1, 1)


@torch.no_grad()
def draw_in_batches(
    sd: Backbone,
    texts: Sequence[tuple[Conditioning, Conditioning]],
    guidance: Guidance,
    batch_size: int | None,
    show_progress: bool,
    *,
    num_inference_steps: int,
    generator: Generators | None,
    latents: Tensor | None,
    seed: int,
    height: int | None,
    width: int | None,
    start: Start | None = None,
    **options: Any,
) -> Tensor:
    """Draws pictures of a conditioning, as many at a time as there is room.

    Args:
        texts: What guidance moves towards and what away from, B texts in all.
            Those of a pair are of one length, and are not drawn together with
            those of another.
        guidance: How far they are followed.
        batch_size: How many at a time; None for what memory takes.
        show_progress: Whether to show a progress bar.
        num_inference_steps: See :func:`draw_latents`, as for the rest.
        generator: Likewise; one for all takes all at once, since it draws the
            noise of all pictures step by step.
        latents: Likewise.
        seed: Likewise.
        height: Likewise.
        width: Likewise.
        start: Likewise.
        **options: Likewise.

    Returns:
        (B, 3, H, W) in [-1, 1] fp32.

    Raises:
        ValueError: If sizes or shapes do not fit, or pictures that are drawn
            one after another have one generator.
    """
    if batch_size is not None and batch_size < 1:
        raise UserError(
            f'`batch_size` must be at least 1, but got {batch_size}.'
        )
    shape = latent_shape(sd, height, width)
    one_for_all = isinstance(generator, torch.Generator)
    batches = []
    count = 0  # pictures so far
    for text, negative in texts:
        at_once = batch_size or len(text)
        if batch_size is None and len(text) > 1 and not one_for_all:
            at_once = pictures_at_once(sd, shape, text, guidance)
        for first in range(0, len(text), at_once):
            part = slice(first, first + at_once)
            batches.append((count + first, text[part], negative[part]))
        count += len(text)
    if one_for_all and len(batches) > 1:
        why = 'prompts are of several lengths'
        if batch_size is not None and batch_size < count:
            why = f'`batch_size` ({batch_size}) is less than {count} pictures'
        raise UserError(
            '`generator` must be a list of one for each picture where '
            f'{why}: one for all draws their noise together.'
        )
    given: dict[str, Any] = dict(generator=generator, latents=latents)
    steps = num_inference_steps
    if start is not None:
        steps = start.steps(num_inference_steps)
    for name, each in given.items():
        if len(batches) > 1 and each is not None and len(each) != count:
            raise UserError(
                f'`{name}` must have one for each of {count} pictures, but '
                f'has {len(each)}.'
            )
    pixels = []
    with progress_bar(
        total=steps * len(batches), disable=not show_progress
    ) as progress:
        for first, text, negative in batches:
            part = slice(first, first + len(text))
            own = given
            if len(batches) > 1:
                own = {
                    name: None if each is None else each[part]
                    for name, each in given.items()
                }
            pixels.append(
                draw(
                    sd,
                    text,
                    guidance,
                    negative,
                    num_inference_steps=num_inference_steps,
                    **own,
                    seed=seed + first,
                    start=None if start is None else start[part],
                    height=height,
                    width=width,
                    callback=lambda *_: progress.update(),
                    **options,
                )
            )
    return torch.cat(pixels)
