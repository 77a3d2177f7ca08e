"""Words that mean something else by layer or by stage of the noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from typing_extensions import override

from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.textual_inversion import TextualInversion
from mmhiper.utils.arguments import is_number
from mmhiper.utils.errors import UserError


class VaryingWords(TextualInversion):
    """Textual Inversion with a set of vectors for each place of action.

    A subclass says how many sets there are, :attr:`num_groups`, and where
    they act, :meth:`arrange`.

    Args:
        *args: See :class:`TextualInversion`.
        **options: Likewise; ``num_vectors_per_token`` is that of one set.

    Raises:
        ValueError: If vectors are to come one after another.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.progressive_interval is not None:
            raise UserError(
                f'{type(self).__name__} learns all vectors from the start: '
                'leave out `progressive_interval`.'
            )

    @property
    @abstractmethod
    @override
    def num_groups(self) -> int:
        """How many sets of vectors each word has, G."""

    @abstractmethod
    @override
    def arrange(self, texts: Conditioning) -> Conditioning:
        """Where the sets act; see :class:`WordEditor`."""

    def condition_within(
        self, prompts: list[str], within: Sequence[int] | None, name: str
    ) -> Conditioning:
        """Prompts whose learned words act in some of the places alone.

        Elsewhere their initialisers stand for them.

        Args:
            prompts: B prompts.
            within: ``(first, end)``; all without.
            name: Of this option, for messages.

        Returns:
            B texts.

        Raises:
            ValueError: If there are no such places.
        """
        learned = super().condition(prompts)
        if within is None:
            return learned
        if not _is_range(within, self.num_groups):
            raise UserError(
                f'`{name}` must be a pair (first, end) of integers with '
                f'0 <= first < end <= {self.num_groups}, but got {within!r}.'
            )
        words = [self._in_plain_words(prompt) for prompt in prompts]
        plain = self.sd.encode_text(words).tokens[:, None, None]
        places = torch.arange(self.num_groups, device=plain.device)
        here = (within[0] <= places) & (places < within[1])
        # (G, 1, 1) -> (1, S, L, 1, 1)
        here = self.arrange(Conditioning(here[:, None, None])).tokens
        return learned.with_tokens(torch.where(here, learned.tokens, plain))

    @override
    def condition_weighted(
        self, prompts: list[str], negatives: list[str] | None, **options: Any
    ) -> NoReturn:
        """Impossible: compel reads one text for all layers and steps.

        Raises:
            ValueError: Always.
        """
        raise UserError(
            f'{type(self).__name__} reads another text in each layer or '
            'step, which prompts with weights cannot be: leave out '
            '`prompt_weighting`. HiPer and TextualInversion read them.'
        )

    @override
    def to_diffusers(self) -> Any:
        """Impossible: a plain pipeline reads one text everywhere.

        Raises:
            ValueError: Always.
        """
        raise UserError(
            f'{type(self).__name__} cannot become a plain pipeline, which '
            'reads the same text in all layers and steps. Draw with '
            '`editor.infer`.'
        )


def _is_range(values: Any, count: int) -> bool:
    """Whether it is a pair of integers that bound some of ``count``."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        return False
    if len(values) != 2 or not all(map(is_number, values)):
        return False
    if any(value != int(value) for value in values):
        return False
    return bool(0 <= values[0] < values[1] <= count)
