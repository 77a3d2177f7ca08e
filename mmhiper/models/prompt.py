"""A prompt to edit by: its words, and where each stands.

It is tokenised word by word (whitespace separates tokens of CLIP, so that
gives the same ids), behind a start mark at position 0 and followed by end
marks up to position M - 1.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmhiper.models.edit_options import Word
from mmhiper.utils.errors import UserError

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True)
class Prompt:
    """A prompt cut into words, and where each stands.

    Attributes:
        text: The prompt.
        words: Its words, as they are separated by spaces.
        ids: The token ids of each word.
        num_positions: M, start and end marks included.
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
            tokenize: Text to token ids, without marks.
            num_positions: M.

        Returns:
            The words.

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

    def positions(self, word: Word) -> list[int]:
        """Where a word, or several in a row, stands.

        Case and punctuation around a word do not count.

        Args:
            word: 'cat', or 'black cat'; or the place of one word, from 0.

        Returns:
            The positions of all its occurrences.

        Raises:
            ValueError: If it is not in the prompt.
        """
        if isinstance(word, int):
            if not 0 <= word < len(self.words):
                raise UserError(
                    f'The place of a word in {self.text!r} must be in '
                    f'[0, {len(self.words) - 1}], but got {word}.'
                )
            return list(self.spans[word])
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

    def indicator(self, words: Sequence[Word]) -> Tensor:
        """Marks the positions of words.

        Args:
            words: Words of the prompt.

        Returns:
            (M,), 1 at their positions, else 0.
        """
        marks = torch.zeros(self.num_positions)
        for word in words:
            marks[self.positions(word)] = 1
        return marks


def _bare(word: str) -> str:
    """A word without the punctuation around it, in lower case."""
    return word.strip(string.punctuation).lower() or word
