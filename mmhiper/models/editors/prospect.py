"""ProSpect: a word with a vector per stage of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.varying_words import VaryingWords
from mmhiper.registry import MODELS
from mmhiper.utils.errors import UserError


@MODELS.register_module()
class ProSpect(VaryingWords):
    """ProSpect, a prompt spectrum (arXiv 2305.16225).

    The timesteps are cut into S stages, and each reads the sentence with a
    vector of its own for the new word: the noisy ones first learn the layout,
    those in the middle the content, the last ones material and style. An edit
    takes some of them, by ``stages``.

    Args:
        *args: See :class:`TextualInversion`.
        num_stages: S; the paper has 10.
        **options: See :class:`TextualInversion`.

    Raises:
        ValueError: If the number of stages is out of range.
    """

    def __init__(
        self, *args: Any, num_stages: int = 10, **options: Any
    ) -> None:
        if not 1 <= num_stages <= 1000:
            raise UserError(
                f'`num_stages` must be in [1, 1000], but got {num_stages}.'
            )
        self.num_stages = num_stages  # rows are made by it
        super().__init__(*args, **options)

    @property
    @override
    def num_groups(self) -> int:
        """The number of stages, S."""
        return self.num_stages

    @override
    def arrange(self, texts: Conditioning) -> Conditioning:
        """A set for each stage: (B, S, 1, M, D)."""
        return texts.by_stage(self.num_groups)

    @override
    def condition(
        self, prompts: list[str], *, stages: Sequence[int] | None = None
    ) -> Conditioning:
        """Prompts with learned words, in all stages or in some.

        Args:
            prompts: B prompts.
            stages: ``(first, end)``: the learned words act in the stages first
                to end - 1, the noisiest is 0; elsewhere their initialisers
                stand for them.

        Returns:
            B texts.
        """
        return self.condition_within(prompts, stages, 'stages')
