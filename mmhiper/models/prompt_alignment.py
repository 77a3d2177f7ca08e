"""How the words of two prompts correspond: pure functions of token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmhiper.models.edit_options import Tau, Word, crossing_span
from mmhiper.models.prompt import Prompt
from mmhiper.utils.errors import UserError


@dataclass(frozen=True)
class Alignment:
    """How attention to a source prompt becomes attention to a target prompt.

    The aligned map of a target position is ``source @ mapper``, plus, where
    ``fresh`` is 1, the target's own.

    Attributes:
        mapper: (M, M), from source positions (rows) to target positions
            (columns).
        fresh: (M,), 1 where the source has nothing to give.
    """

    mapper: Tensor
    fresh: Tensor


def align_replacement(source: Prompt, target: Prompt) -> Alignment:
    """Word k of the source gives its attention to word k of the target.

    Where the two have different numbers of tokens, each token of the target
    word gets an equal share of the whole source word (prompt-to-prompt,
    arXiv 2208.01626, sec. 3.2, "word swap"), and what stands behind them,
    words and end marks, moves with them.

    Args:
        source: The prompt of the picture.
        target: The prompt of the edit.

    Returns:
        With nothing fresh.

    Raises:
        ValueError: If they have different numbers of words.
    """
    _check_same_length(source, target)
    mapper = _marks(source, target)
    for old, new in zip(source.spans, target.spans, strict=True):
        _swap(mapper, old, new)
    return Alignment(mapper, torch.zeros(len(mapper)))


def align_replacement_officially(source: Prompt, target: Prompt) -> Alignment:
    """As :func:`align_replacement`, with positions as in the papers' code.

    There, behind the last word that differs, each position keeps to the same
    position of the source, though words have moved; and a target that is d
    tokens shorter leaves its last d positions without attention.

    Args:
        source: The prompt of the picture.
        target: The prompt of the edit.

    Returns:
        With nothing fresh.

    Raises:
        ValueError: If they have different numbers of words.
    """
    _check_same_length(source, target)
    size = source.num_positions
    mapper = torch.zeros(size, size)
    mapper[0, 0] = 1
    behind, shift = 1, 0  # the last word that differs
    spans = zip(source.spans, target.spans, strict=True)
    for k, (old, new) in enumerate(spans):
        if source.words[k] != target.words[k]:
            behind, shift = new.stop, old.stop - new.stop
        _swap(mapper, old, new)
    mapper[:, behind:] = torch.eye(size)[:, behind:]
    mapper[:, size - max(0, shift) :] = 0
    return Alignment(mapper, torch.zeros(size))


def _check_same_length(source: Prompt, target: Prompt) -> None:
    """Refuses prompts of different numbers of words."""
    if len(source.words) != len(target.words):
        raise UserError(
            "edit_type='replacement' replaces word by word: the prompts must "
            f'have the same number of words, but {source.text!r} has '
            f'{len(source.words)} and {target.text!r} has '
            f"{len(target.words)}. Use edit_type='refinement' to add or "
            'remove words.'
        )


def _swap(mapper: Tensor, old: range, new: range) -> None:
    """Gives a word of the target the attention of one of the source."""
    if len(old) == len(new):
        mapper[list(old), list(new)] = 1
    else:
        mapper[old.start : old.stop, new.start : new.stop] = 1 / len(new)


def align_refinement(source: Prompt, target: Prompt) -> Alignment:
    """Tokens that both prompts have, in order, keep the source's attention.

    The longest common subsequence of tokens by dynamic programming;
    everything else in the target is fresh (prompt-to-prompt, sec. 3.2,
    "adding a new phrase").

    Args:
        source: The prompt of the picture.
        target: The prompt of the edit.

    Returns:
        One-hot columns, or fresh ones.
    """
    mapper = _marks(source, target)
    _keep_common_tokens(mapper, source, target)
    return Alignment(mapper, (mapper.sum(0) == 0).float())


def align_refinement_officially(source: Prompt, target: Prompt) -> Alignment:
    """As :func:`align_refinement`, with end marks as in the papers' code.

    There the first end mark keeps to the source's first, and behind it each
    position to the same position of the source, be that a word or a mark.

    Args:
        source: The prompt of the picture.
        target: The prompt of the edit.

    Returns:
        One-hot columns, or fresh ones.
    """
    size = source.num_positions
    mapper = torch.zeros(size, size)
    mapper[0, 0] = mapper[source.end, target.end] = 1
    mapper[:, target.end + 1 :] = torch.eye(size)[:, target.end + 1 :]
    _keep_common_tokens(mapper, source, target)
    return Alignment(mapper, (mapper.sum(0) == 0).float())


def _keep_common_tokens(
    mapper: Tensor, source: Prompt, target: Prompt
) -> None:
    """Gives tokens of both prompts the attention of the source."""
    old, new = ([i for ids in p.ids for i in ids] for p in (source, target))
    for i, j in _common_subsequence(old, new):
        mapper[1 + i, 1 + j] = 1


ALIGN: dict[str, dict[str, Callable[[Prompt, Prompt], Alignment]]] = dict(
    words=dict(replacement=align_replacement, refinement=align_refinement),
    official=dict(
        replacement=align_replacement_officially,
        refinement=align_refinement_officially,
    ),
)


def equaliser(
    target: Prompt, reweight: Iterable[tuple[Word, float]]
) -> Tensor:
    """Factors on the attention to each position.

    Args:
        target: The prompt of the edit.
        reweight: Factors of words, negative ones too.

    Returns:
        (M,), 1 where nothing is named.

    Raises:
        ValueError: If a word is not in the prompt.
    """
    factors = torch.ones(target.num_positions)
    for word, factor in reweight:
        factors[target.positions(word)] = float(factor)
    return factors


def replacement_schedule(
    target: Prompt,
    num_steps: int,
    tau: Tau,
    cross_replace: Iterable[tuple[Word, Tau]],
) -> Tensor:
    """In which steps the attention to which position is replaced.

    Args:
        target: The prompt of the edit.
        num_steps: T.
        tau: See :class:`EditOptions`.
        cross_replace: Another one of words.

    Returns:
        (T, M) of 0 and 1.

    Raises:
        ValueError: If a word is not in the prompt.
    """
    everywhere = list(range(target.num_positions))
    spans = [(everywhere, crossing_span(tau, num_steps))]
    for word, own in cross_replace:
        spans.append((target.positions(word), crossing_span(own, num_steps)))
    alphas = torch.zeros(num_steps, target.num_positions)
    for positions, span in spans:
        alphas[:, positions] = 0
        alphas[span.start : span.stop, positions] = 1
    return alphas


def _marks(source: Prompt, target: Prompt) -> Tensor:
    """A mapper of the marks alone."""
    # Start mark to start mark, first end mark to first end mark, and so on;
    # a target with more of them repeats the source's last.
    size = source.num_positions
    mapper = torch.zeros(size, size)
    mapper[0, 0] = 1
    for position in range(target.end, size):
        old = min(source.end + position - target.end, size - 1)
        mapper[old, position] = 1
    return mapper


def _common_subsequence(
    old: Sequence[int], new: Sequence[int]
) -> list[tuple[int, int]]:
    """The longest common subsequence of two sequences."""
    # Of several it is the one that prompt-to-prompt takes: from the back, each
    # token is paired as far in front as possible, first in the target.

    # longest[i][j]: of old[:i] and new[:j]
    longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, token in enumerate(old, start=1):
        for j, other in enumerate(new, start=1):
            if token == other:
                longest[i][j] = 1 + longest[i - 1][j - 1]
            else:
                longest[i][j] = max(longest[i - 1][j], longest[i][j - 1])
    pairs: list[tuple[int, int]] = []
    i, j = len(old), len(new)
    while longest[i][j]:
        if longest[i][j - 1] == longest[i][j]:
            j -= 1
        elif longest[i - 1][j] == longest[i][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
