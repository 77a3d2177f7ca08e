"""Prompt-to-prompt (arXiv 2208.01626): one picture's attention in another.

A file of its own beside ``attention.py``, which knows maps but no prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmhiper.models.attention import (
    AttentionControl,
    Layer,
    MapAverage,
    blend_mask,
)
from mmhiper.models.prompt_alignment import (
    Prompt,
    align_refinement,
    align_replacement,
    equaliser,
    num_steps_of,
    replacement_schedule,
)
from mmhiper.utils.errors import UserError

ALIGN = dict(replacement=align_replacement, refinement=align_refinement)
# A local blend waits until attention has found the words.
BLEND_AFTER = 0.2

BlendWords = str | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class EditOptions:
    """How an edit keeps to its source (METHODS 3.5 and 3.6).

    Attributes:
        edit_type (str, optional): 'replacement' (word by word) or
            'refinement' (words added or removed). By default the former for
            prompts of as many words, else the latter.
        tau_v (float): Fraction of the steps in which the edit also uses what
            was learned of the picture. All fractions are in [0, 1] and count
            from the noisy end.
        tau_c (float): Fraction with the source's cross-attention.
        tau_s (float): Fraction with the source's self-attention, in the
            conditional branch.
        tau_u (float): Likewise in the unconditional branch; .5 for large
            changes of structure.
        blend_words (str or pair, optional): Words whose place alone changes:
            one word of both prompts, or (of the source, of the target), each
            a word or several.
        reweight (Mapping[str, float], optional): Factors on the attention to
            words of the target.
        cross_replace (Mapping[str, float], optional): ``tau_c`` of single
            words of the target.

    Raises:
        ValueError: If a value is out of its range.
    """

    edit_type: str | None = None
    tau_v: float = 0.5
    tau_c: float = 0.6
    tau_s: float = 0.6
    tau_u: float = 0.0
    blend_words: BlendWords | None = None
    reweight: Mapping[str, float] | None = None
    cross_replace: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.edit_type not in (None, *ALIGN):
            raise UserError(
                f'`edit_type` must be one of {list(ALIGN)}, but got '
                f'{self.edit_type!r}.'
            )
        fractions = {
            name: getattr(self, name)
            for name in ('tau_v', 'tau_c', 'tau_s', 'tau_u')
        }
        for word, fraction in (self.cross_replace or {}).items():
            fractions[f'cross_replace[{word!r}]'] = fraction
        for name, fraction in fractions.items():
            if not 0 <= fraction <= 1:
                raise UserError(
                    f'`{name}` is a fraction of the steps and must be in '
                    f'[0, 1], but got {fraction}.'
                )
        for word, factor in (self.reweight or {}).items():
            if not math.isfinite(factor):
                raise UserError(
                    f'`reweight[{word!r}]` must be a number, but got {factor}.'
                )

    def words_to_blend(self) -> tuple[Sequence[str], Sequence[str]] | None:
        """The words of source and target whose place changes.

        Returns:
            tuple, optional: Two lists of words.

        Raises:
            ValueError: If it is neither a word nor a pair.
        """
        words = self.blend_words
        if words is None:
            return None
        if isinstance(words, str):
            return [words], [words]
        if len(words) != 2:
            raise UserError(
                '`blend_words` must be one word of both prompts, or a pair '
                f'(of the source, of the target), but got {words!r}.'
            )
        old, new = (
            [each] if isinstance(each, str) else list(each) for each in words
        )
        return old, new


class PromptToPrompt(AttentionControl):
    """Gives an edit the attention of its source.

    Works on batches of four rows: unconditional source, unconditional
    target, source, target.

    Args:
        source (Prompt): The prompt of the picture.
        target (Prompt): The prompt of the edit.
        options (EditOptions): How.
        num_steps (int): T.
        device (torch.device): Of the maps.

    Attributes:
        step (int): The current step in [0, T), to be kept up to date.

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
        aligned = ALIGN[edit_type](source, target)
        alphas = replacement_schedule(
            target, num_steps, options.tau_c, options.cross_replace or {}
        )
        factors = equaliser(target, options.reweight or {})
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
        self.cross_until = int(alphas.amax(1).sum())
        self.self_until = num_steps_of(options.tau_s, num_steps)
        self.unconditional_until = num_steps_of(options.tau_u, num_steps)
        self.step = 0

    def borrow(self, layer: Layer) -> list[int] | None:
        """Self-attention of the source, at half the latents' side or less.

        That is up to 32x32 for latents of 64x64; finer maps hold texture,
        which should follow the edit.
        """
        if 2 * layer.side > layer.latent_side:
            return None
        rows = [0, 1, 2, 3]
        if self.step < self.unconditional_until:
            rows[1] = 0
        if self.step < self.self_until:
            rows[3] = 2
        return None if rows == [0, 1, 2, 3] else rows

    def wants_maps(self, layer: Layer) -> bool:
        """Whether cross-attention is replaced in this step."""
        return self.step < self.cross_until

    def see(self, layer: Layer, maps: Tensor) -> Tensor:
        """Replaces the maps of the target, the last row."""
        own, source = maps[3], maps[2]  # (heads, P, M)
        aligned = source @ self.mapper + self.fresh * own
        alpha = self.alphas[self.step]  # (M,)
        new = alpha * self.factors * aligned + (1 - alpha) * own
        return torch.cat([maps[:3], new[None]])


class LocalBlend:
    """Keeps an edit to the place of some words (METHODS 3.6).

    Args:
        source (Prompt): The prompt of the picture.
        target (Prompt): The prompt of the edit.
        words (tuple): Words of the source, words of the target.
        layers (Sequence[Layer]): Whose maps show where words are.
        num_steps (int): T.
        device (torch.device): Of the maps.

    Raises:
        ValueError: If a word is missing.
    """

    def __init__(
        self,
        source: Prompt,
        target: Prompt,
        words: tuple[Sequence[str], Sequence[str]],
        layers: Sequence[Layer],
        num_steps: int,
        device: torch.device,
    ) -> None:
        self.words = torch.stack(
            [source.indicator(words[0]), target.indicator(words[1])]
        ).to(device)
        self.maps = MapAverage(layers, rows=slice(2, 4))
        self.after = num_steps_of(BLEND_AFTER, num_steps)

    def __call__(self, done: int, latents: Tensor) -> None:
        """Gives the target the source's latents outside the mask.

        Args:
            done (int): Steps done.
            latents (Tensor): Source and target, (2, 4, h, w), changed in
                place.
        """
        if done <= self.after:
            return
        source, target = latents
        mask = blend_mask(self.maps.mean(), self.words, source.shape[1:])
        target.copy_(torch.where(mask, target, source))
