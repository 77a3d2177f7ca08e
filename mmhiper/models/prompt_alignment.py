"""How the words of two prompts correspond: pure functions of token ids.

A prompt is tokenised word by word (whitespace separates tokens of CLIP, so
that gives the same ids), behind a start mark at position 0 and followed by
end marks up to position M - 1.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmhiper.utils.errors import UserError

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True)
class Prompt:
    """A prompt cut into words, and where each stands.

    Attributes:
        text (str): The prompt.
        words (tuple[str, ...]): Its words, as they are separated by spaces.
        ids (tuple[tuple[int, ...], ...]): The token ids of each word.
        num_positions (int): M, start and end marks included.
    """

    text: str
    words: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    num_positions: int

    @classmethod
    def parse(
        cls, text: str, tokenize: Tokenize, num_positions: int
    ) -> Prompt:
        """Cuts a text into words.

        Args:
            text (str): The prompt.
            tokenize (callable): Text to token ids, without marks.
            num_positions (int): M.

        Returns:
            Prompt: The words.

        Raises:
            ValueError: If it does not fit into M positions.
        """
        words = tuple(text.split())
        prompt = cls(
            text,
            words,
            tuple(tuple(tokenize(word)) for word in words),
            num_positions,
        )
        if prompt.end > num_positions - 1:
            raise UserError(
                f'A prompt to edit by must have at most {num_positions - 2} '
                f'tokens, but {text!r} has {prompt.end - 1}. Shorten it.'
            )
        return prompt

    @property
    def spans(self) -> list[range]:
        """The positions of each word."""
        spans, start = [], 1  # behind the start mark
        for ids in self.ids:
            spans.append(range(start, start + len(ids)))
            start += len(ids)
        return spans

    @property
    def end(self) -> int:
        """The position of the end mark."""
        return 1 + sum(map(len, self.ids))

    def positions(self, word: str) -> list[int]:
        """Where a word, or several in a row, stands.

        Case and punctuation around a word do not count.

        Args:
            word (str): 'cat', or 'black cat'.

        Returns:
            list[int]: The positions of all its occurrences.

        Raises:
            ValueError: If it is not in the prompt.
        """
        wanted = [_bare(part) for part in word.split()]
        bare = [_bare(each) for each in self.words]
        spans = self.spans
        found: list[int] = []
        for start in range(len(bare) - len(wanted) + 1):
            stop = start + len(wanted)
            if wanted and bare[start:stop] == wanted:
                for span in spans[start:stop]:
                    found += span
        if not found:
            raise UserError(
                f'The word {word!r} is not in the prompt {self.text!r}. Its '
                f'words are: {", ".join(self.words)}.'
            )
        return found

    def indicator(self, words: Sequence[str]) -> Tensor:
        """Marks the positions of words.

        Args:
            words (Sequence[str]): Words of the prompt.

        Returns:
            Tensor: (M,), 1 at their positions, else 0.
        """
        marks = torch.zeros(self.num_positions)
        for word in words:
            marks[self.positions(word)] = 1
        return marks


@dataclass(frozen=True)
class Alignment:
    """How attention to a source prompt becomes attention to a target prompt.

    The aligned map of a target position is ``source @ mapper``, plus, where
    ``fresh`` is 1, the target's own.

    Attributes:
        mapper (Tensor): (M, M), from source positions (rows) to target
            positions (columns).
        fresh (Tensor): (M,), 1 where the source has nothing to give.
    """

    mapper: Tensor
    fresh: Tensor


def align_replacement(source: Prompt, target: Prompt) -> Alignment:
    """Word k of the source gives its attention to word k of the target.

    Where the two have different numbers of tokens, each token of the target
    word gets an equal share of the whole source word (prompt-to-prompt,
    arXiv 2208.01626, sec. 3.2, "word swap").

    Args:
        source (Prompt): The prompt of the picture.
        target (Prompt): The prompt of the edit.

    Returns:
        Alignment: With nothing fresh.

    Raises:
        ValueError: If they have different numbers of words.
    """
    if len(source.words) != len(target.words):
        raise UserError(
            "edit_type='replacement' replaces word by word: the prompts must "
            f'have the same number of words, but {source.text!r} has '
            f'{len(source.words)} and {target.text!r} has '
            f"{len(target.words)}. Use edit_type='refinement' to add or "
            'remove words.'
        )
    mapper = _marks(source, target)
    for old, new in zip(source.spans, target.spans, strict=True):
        if len(old) == len(new):
            mapper[list(old), list(new)] = 1
        else:
            for position in old:
                mapper[position, list(new)] = 1 / len(new)
    return Alignment(mapper, torch.zeros(len(mapper)))


def align_refinement(source: Prompt, target: Prompt) -> Alignment:
    """Tokens that both prompts have, in order, keep the source's attention.

    The longest common subsequence of tokens by dynamic programming;
    everything else in the target is fresh (prompt-to-prompt, sec. 3.2,
    "adding a new phrase").

    Args:
        source (Prompt): The prompt of the picture.
        target (Prompt): The prompt of the edit.

    Returns:
        Alignment: One-hot columns, or fresh ones.
    """
    mapper = _marks(source, target)
    old = [token for ids in source.ids for token in ids]
    new = [token for ids in target.ids for token in ids]
    for i, j in _common_subsequence(old, new):
        mapper[1 + i, 1 + j] = 1
    return Alignment(mapper, (mapper.sum(0) == 0).float())


def equaliser(target: Prompt, reweight: Mapping[str, float]) -> Tensor:
    """Factors on the attention to each position.

    Args:
        target (Prompt): The prompt of the edit.
        reweight (Mapping[str, float]): Factor per word, negative ones too.

    Returns:
        Tensor: (M,), 1 where nothing is named.

    Raises:
        ValueError: If a word is not in the prompt.
    """
    factors = torch.ones(target.num_positions)
    for word, factor in reweight.items():
        factors[target.positions(word)] = float(factor)
    return factors


def num_steps_of(fraction: float, num_steps: int) -> int:
    """How many steps a fraction tau of them is.

    Args:
        fraction (float): In [0, 1].
        num_steps (int): All steps.

    Returns:
        int: Rounded.
    """
    return round(fraction * num_steps)


def replacement_schedule(
    target: Prompt,
    num_steps: int,
    tau: float,
    cross_replace: Mapping[str, float],
) -> Tensor:
    """In which steps the attention to which position is replaced.

    Args:
        target (Prompt): The prompt of the edit.
        num_steps (int): T.
        tau (float): Fraction of the steps, counted from the noisy end.
        cross_replace (Mapping[str, float]): Other fractions for words.

    Returns:
        Tensor: (T, M) of 0 and 1.

    Raises:
        ValueError: If a word is not in the prompt.
    """
    until = torch.full((target.num_positions,), num_steps_of(tau, num_steps))
    for word, fraction in cross_replace.items():
        until[target.positions(word)] = num_steps_of(fraction, num_steps)
    # (T, 1) < (M,) -> (T, M)
    return (torch.arange(num_steps)[:, None] < until).float()


def _bare(word: str) -> str:
    """A word without the punctuation around it, in lower case."""
    return word.strip(string.punctuation).lower() or word


def _marks(source: Prompt, target: Prompt) -> Tensor:
    """A mapper of the marks alone.

    Start mark to start mark, first end mark to first end mark, and so on;
    a target with more of them repeats the source's last.

    Args:
        source (Prompt): The prompt of the picture.
        target (Prompt): The prompt of the edit.

    Returns:
        Tensor: (M, M).
    """
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
    """The longest common subsequence of two sequences.

    Args:
        old (Sequence[int]): Tokens.
        new (Sequence[int]): Tokens.

    Returns:
        list[tuple[int, int]]: Pairs of indices into both, rising.
    """
    # longest[i][j]: of old[i:] and new[j:]
    longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            if old[i] == new[j]:
                longest[i][j] = 1 + longest[i + 1][j + 1]
            else:
                longest[i][j] = max(longest[i + 1][j], longest[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs
