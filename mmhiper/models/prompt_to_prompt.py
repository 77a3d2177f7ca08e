"""Prompt-to-prompt (arXiv 2208.01626): one picture's attention in another.

A file of its own beside ``attention.py``, which knows maps but no prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from mmhiper.models.attention import (
    AttentionControl,
    Layer,
    MapAverage,
    blend_mask,
)
from mmhiper.models.edit_options import EditOptions, span_of
from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_alignment import (
    ALIGN,
    equaliser,
    replacement_schedule,
)
from mmhiper.utils.errors import UserError


class PromptToPrompt(AttentionControl):
    """Gives an edit the attention of its source.

    Works on batches of four rows: unconditional source, unconditional
    target, source, target; the last two alone in a step without guidance.

    Args:
        source: The prompt of the picture.
        target: The prompt of the edit.
        options: How.
        num_steps: T.
        device: Of the maps.

    Attributes:
        step: The current step in [0, T), to be kept up to date.
        guided: Whether it has unconditional rows, likewise.

    Raises:
        ValueError: If a word is missing, the prompts do not fit together, or
            ``reweight`` would touch nothing.
    """

    def __init__(
        self,
        source: Prompt,
        target: Prompt,
        options: EditOptions,
        num_steps: int,
        device: torch.device,
    ) -> None:
        edit_type = options.edit_type
        if edit_type is None:
            same = len(source.words) == len(target.words)
            edit_type = 'replacement' if same else 'refinement'
        aligned = ALIGN[options.align][edit_type](source, target)
        alphas = replacement_schedule(
            target, num_steps, options.tau_c, options.pairs('cross_replace')
        )
        factors = equaliser(target, options.pairs('reweight'))
        if options.reweight and not alphas[:, factors != 1].any():
            raise UserError(
                '`reweight` acts in the steps and on the words whose '
                'cross-attention is replaced, and here there are none: raise '
                '`tau_c`, or `cross_replace` of these words.'
            )
        self.mapper = aligned.mapper.to(device)
        self.fresh = aligned.fresh.to(device)
        self.factors = factors.to(device)
        self.alphas = alphas.to(device)
        self.crossing: list[bool] = alphas.any(1).tolist()
        self.self_steps = span_of(options.tau_s, num_steps)
        self.unconditional_steps = span_of(options.tau_u, num_steps)
        self.step = 0
        self.guided = True

    @override
    def borrow(self, layer: Layer) -> list[int] | None:
        """Self-attention of the source, at half the latents' side or less.

        That is up to 32x32 for latents of 64x64; finer maps hold texture,
        which should follow the edit.
        """
        if 2 * layer.side > layer.latent_side:
            return None
        own = list(range(4 if self.guided else 2))
        rows = own.copy()
        if self.guided and self.step in self.unconditional_steps:
            rows[1] = 0
        if self.step in self.self_steps:
            rows[-1] = own[-2]
        return None if rows == own else rows

    @override
    def wants_maps(self, layer: Layer) -> bool:
        """Whether cross-attention is replaced in this step."""
        return self.crossing[self.step]

    @override
    def see(self, layer: Layer, maps: Tensor) -> Tensor:
        """Replaces the maps of the target, the last row."""
        own, source = maps[-1], maps[-2]  # (heads, P, M)
        aligned = source @ self.mapper + self.fresh * own
        alpha = self.alphas[self.step]  # (M,)
        new = alpha * self.factors * aligned + (1 - alpha) * own
        return torch.cat([maps[:-1], new[None]])


class LocalBlend:
    """Keeps an edit to the place of some words, as the official code does.

    Args:
        source: The prompt of the picture.
        target: The prompt of the edit.
        options: With ``blend_words``.
        layers: Whose maps show where words are.
        num_steps: T.
        device: Of the maps.

    Raises:
        ValueError: If a word is missing.
    """

    def __init__(
        self,
        source: Prompt,
        target: Prompt,
        options: EditOptions,
        layers: Sequence[Layer],
        num_steps: int,
        device: torch.device,
    ) -> None:

        def marks_of(name: str) -> Tensor | None:
            words = options.words_of_both(name)
            if words is None:
                return None
            marks = [source.indicator(words[0]), target.indicator(words[1])]
            return torch.stack(marks).to(device)  # (2, M)

        self.words = marks_of('blend_words')
        self.without = marks_of('substruct_words')
        self.thresholds = options.thresholds
        self.maps = MapAverage(layers, rows=slice(-2, None))
        self.after = len(span_of(options.start_blend, num_steps))

    def __call__(self, done: int, latents: Tensor) -> None:
        """Gives the target the source's latents outside the mask.

        Args:
            done: Steps done.
            latents: Source and target, (2, 4, h, w), changed in place.
        """
        if done <= self.after:
            return
        source, target = latents
        maps, size = self.maps.mean(), source.shape[1:]
        assert self.words is not None
        mask = blend_mask(maps, self.words, size, self.thresholds[0])
        if self.without is not None:
            mask &= ~blend_mask(
                maps, self.without, size, self.thresholds[1], spread=False
            )
        target.copy_(torch.where(mask, target, source))
