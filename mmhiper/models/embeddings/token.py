"""The new words of Textual Inversion: rows of the token table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.utils.errors import UserError


class TokenEmbedding(nn.Module):
    """The rows of new words' tokens, and of per-image tokens.

    Entry A of docs/en/method.md: before the text encoder. These tensors are
    all that trains; the table of the vocabulary is elsewhere, and frozen.

    The rows of a word are a parameter of their own: a step whose sentences
    lack it leaves no gradient, and an optimizer leaves it alone. It is called
    ``rows``; of several, ``rows:<word>``, so that a checkpoint says which is
    which.

    Args:
        initial: Start values by word, (n, D) each.
        image_initial: Start values of one further token for each of I training
            pictures, (I, D).
        norms: For each text encoder the width of its part of a row, and the
            norm that this part of a word's rows keeps: the direction alone is
            learned (arXiv 2512.13672).

    Attributes:
        counts: How many rows n each word has.
        active: How many of them are in use: with progressive vectors, those
            that had their turn.
    """

    def __init__(
        self,
        initial: Mapping[str, Tensor],
        image_initial: Tensor | None = None,
        norms: Sequence[tuple[int, float]] | None = None,
    ) -> None:
        super().__init__()
        self._norms = norms
        self._suffixes = {w: _suffix(w, len(initial)) for w in initial}
        self.counts = {word: len(rows) for word, rows in initial.items()}
        self.active = dict(self.counts)
        for word, suffix in self._suffixes.items():
            rows = initial[word].detach().float().clone()
            assert rows.ndim == 2, rows.shape
            rows = self._at_norm(rows)
            self.register_parameter(f'rows{suffix}', nn.Parameter(rows))
            # the config makes them again, so they are in no checkpoint
            self.register_buffer(
                f'initial{suffix}', rows.clone(), persistent=False
            )
        self.image_rows = None
        if image_initial is not None:
            self.image_rows = nn.Parameter(
                image_initial.detach().float().clone()
            )

    def parameter_of(self, word: str) -> nn.Parameter:
        """What is learned of a word, (n, D)."""
        rows: nn.Parameter = getattr(self, f'rows{self._suffixes[word]}')
        return rows

    def rows_of(self, word: str) -> Tensor:
        """The rows of a word, (n, D)."""
        return self._at_norm(self.parameter_of(word))

    def _at_norm(self, rows: Tensor) -> Tensor:
        """Rows at the norms that they are to have."""
        if self._norms is None:
            return rows
        widths, norms = zip(*self._norms, strict=True)
        parts = rows.split(widths, dim=1)
        scaled = map(_scaled, parts, norms)
        return torch.cat(list(scaled), dim=1)

    def initial_of(self, word: str) -> Tensor:
        """Where the rows of a word started, (n, D)."""
        rows: Tensor = getattr(self, f'initial{self._suffixes[word]}')
        return rows

    def active_rows(self, word: str) -> Tensor:
        """The rows that a word stands for by now, (k, D)."""
        return self.rows_of(word)[: self.active[word]]

    def activate(self, most: int) -> None:
        """Takes so many rows of each word into use.

        Args:
            most: At least 1; all of a word that has fewer.
        """
        self.active = {w: min(most, n) for w, n in self.counts.items()}

    def state_with(self, words: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of this embedding with rows from elsewhere.

        Args:
            words: Rows of every word, (k, D); where they are fewer than here,
                the others are out of use, and where they started.

        Returns:
            On the CPU. Rows of another width are in it as they are, and do not
            fit.
        """
        state = {name: each.cpu() for name, each in self.state_dict().items()}
        for word, rows in words.items():
            start = self.initial_of(word).cpu()
            if rows.shape[1:] == start.shape[1:]:
                rows = torch.cat([rows.to(start), start[len(rows) :]])
            state[f'rows{self._suffixes[word]}'] = rows
        state['num_active'] = _numbers([len(words[w]) for w in self.counts])
        return state

    def drift(self, word: str) -> Tensor:
        """How far the active rows of a word are from where they started.

        Returns:
            Scalar, the mean over rows of the squared distance.
        """
        rows = self.active_rows(word)
        return (
            (rows - self.initial_of(word)[: len(rows)]).square().sum(1).mean()
        )

    @override
    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        """Notes how many rows are in use: a number, for several one each."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        active = _numbers(list(self.active.values()))
        destination[f'{prefix}num_active'] = active

    @override
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Takes these numbers up again."""
        found = state_dict.pop(f'{prefix}num_active', None)
        if found is None:
            missing: list[str] = args[2]  # PyTorch's own, to be added to
            missing.append(f'{prefix}num_active')
        else:
            numbers = found.reshape(-1).tolist()
            if len(numbers) != len(self.counts):
                raise UserError(
                    f'The checkpoint must say of {len(self.counts)} word(s) '
                    'how many vectors are in use, but says it of '
                    f'{len(numbers)}: it is damaged.'
                )
            pairs = zip(self.counts.items(), numbers, strict=True)
            for (word, count), number in pairs:
                if not 1 <= number <= count:
                    raise UserError(
                        f'Of the {count} vectors of {word!r} at least 1 and '
                        f'at most all must be in use, but the checkpoint says '
                        f'{number}: it is damaged.'
                    )
                self.active[word] = number
        super()._load_from_state_dict(state_dict, prefix, *args)


def _scaled(rows: Tensor, norm: float) -> Tensor:
    """Rows (n, D) at a norm; those that have it already, to the bit."""
    # So rows that come back from a file are those that went there.
    scale = norm / rows.norm(dim=1, keepdim=True)
    there = (scale.detach() - 1).abs() < 1e-6
    # one in value, and with the gradient of the scale
    return rows * torch.where(there, scale + (1 - scale).detach(), scale)


def _numbers(numbers: list[int]) -> Tensor:
    """A number, or one for each of several words, (W,)."""
    return torch.tensor(numbers if len(numbers) > 1 else numbers[0])


def _suffix(word: str, count: int) -> str:
    """What tells the rows of a word apart; PyTorch allows no dots in it."""
    if count == 1:
        return ''
    return ':' + word.replace('%', '%25').replace('.', '%2E')
