"""Texts to token ids, with words that the tokenizer does not know."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from mmhiper.utils.errors import UserError
from mmhiper.utils.names import check_unicode, same_word, word_pattern

WORD_END = '</w>'  # of CLIP's byte-level BPE
WORD_INSIDE = '##'  # of BERT's WordPiece: what begins no word
WORD_START = '\u2581'  # of T5's SentencePiece
SHORTEST = 3  # letters of a word that is suggested
UNTRAINED = 0.25  # share of the words that may be none


class Vocabulary:
    """A tokenizer and placeholders, each of which is several new tokens.

    New tokens have the ids that follow those of the tokenizer, in the order
    in which they were added: id ``size + r`` is row r of all new rows. The
    tokenizer that is given stays as it is. Capitals do not matter, as they do
    not to CLIP; and a placeholder that begins, or ends, with a letter or
    digit is not found within other words: 'desks' has no 'sks' in it.

    Args:
        tokenizer: A tokenizer of transformers.
        num_positions: M, where its text encoder has other than the tokenizer
            says.
        size: V, where the table of the text encoder has more rows than the
            tokenizer has tokens.

    Attributes:
        size: Known tokens V.
        num_positions: Positions of a text M.
    """

    def __init__(
        self,
        tokenizer: Any,
        num_positions: int | None = None,
        size: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.size = size or len(tokenizer)
        self.num_positions: int = num_positions or tokenizer.model_max_length
        # start and end marks; of some tokenizers the end alone
        marks = tokenizer('').input_ids
        marks = marks or [tokenizer.bos_token_id, tokenizer.eos_token_id]
        if None in marks:
            raise UserError(
                'A tokenizer must put a mark at the end of a text, but '
                f'{tokenizer.name_or_path!r} puts none: its files are damaged '
                'or of another kind.'
            )
        self._start, self._end = marks[:-1], marks[-1]
        self._rows: dict[str, range] = {}
        self._lengths: dict[str, int] = {}  # in tokens, those of one group
        self._pattern: re.Pattern[str] | None = None  # of all placeholders
        # Placeholders by what they are called in their files.
        self.called_elsewhere: dict[str, str] = {}

    def copy(self) -> Vocabulary:
        """One with the same placeholders, to add more to."""
        other = copy(self)
        other._rows = dict(self._rows)
        other._lengths = dict(self._lengths)
        other.called_elsewhere = dict(self.called_elsewhere)
        return other

    @property
    def placeholders(self) -> list[str]:
        """All placeholders, in the order in which they were added."""
        return list(self._rows)

    @property
    def num_rows(self) -> int:
        """How many new tokens there are."""
        return sum(map(len, self._rows.values()))

    def rows_of(self, placeholder: str, group: int = 0) -> range:
        """Which of the new rows are a placeholder in a text.

        Args:
            group: Which of its sets of tokens; of a word with one set, that.

        Returns:
            Indices of the new rows.
        """
        rows, length = self._rows[placeholder], self._lengths[placeholder]
        start = group * length if length < len(rows) else 0
        return rows[start : start + length]

    def add(self, placeholder: str, num_vectors: int, groups: int = 1) -> None:
        """Adds a placeholder of some new tokens.

        Args:
            placeholder: One word, such as ``<cat-toy>``.
            num_vectors: How many new tokens it stands for.
            groups: How many such sets of tokens it has; a text that is encoded
                has one of them.

        Raises:
            ValueError: If it is empty, has spaces, is a word that exists, or
                contains another placeholder or is part of one. A sign that is
                one token, such as the ``*`` of the original code, is taken
                over: wherever a text has it, the placeholder is meant.
        """
        self._check_placeholder(placeholder)
        start = self.num_rows
        self._rows[placeholder] = range(start, start + groups * num_vectors)
        self._lengths[placeholder] = num_vectors
        each = '|'.join(f'({word_pattern(word)})' for word in self._rows)
        self._pattern = re.compile(each, re.IGNORECASE)

    def _check_placeholder(self, placeholder: str) -> None:
        if not placeholder or any(letter.isspace() for letter in placeholder):
            raise UserError(
                'A placeholder must be one word without spaces, such as '
                f"'<cat-toy>', but got {placeholder!r}."
            )
        others = {same_word(word): word for word in self._rows}
        wanted = same_word(placeholder)
        exists = len(self.pieces(placeholder)) == 1
        is_sign = not any(letter.isalnum() for letter in placeholder)
        if wanted in others or (exists and not is_sign):
            raise UserError(
                f'The placeholder {placeholder!r} exists in the vocabulary '
                'already, or as a placeholder: it would take the meaning of '
                f"that word. Choose a new one, such as '<{placeholder}>'."
            )
        for word, other in others.items():
            if wanted in word or word in wanted:
                raise UserError(
                    f'The placeholders {placeholder!r} and {other!r} contain '
                    'one another, so that a text does not say which is meant. '
                    'Choose another one.'
                )

    def pieces(self, text: str) -> list[str]:
        """The tokens of a text in letters, without start and end marks."""
        tokens: list[str] = []
        for part in self._split(text):
            if isinstance(part, str):
                tokens.append(part)
            else:
                tokens += self._tokenizer.convert_ids_to_tokens(part)
        return tokens

    def single_token(self, word: str, table: Tensor | None = None) -> int:
        """The id of a word that is one token.

        Args:
            word: A word.
            table: The rows of all known tokens, (V, D), which say what is near
                to it.

        Returns:
            Its id.

        Raises:
            ValueError: If it is none or several tokens; the message shows
                them, and words of one token that are near in the table.
        """
        check_unicode('initialize_token', word)
        pieces = self.pieces(word)
        if len(pieces) != 1:
            shown = ', '.join(repr(piece) for piece in pieces) or 'nothing'
            near = '' if table is None else self._suggest(pieces, table)
            raise UserError(
                '`initialize_token` must be a single token of the vocabulary, '
                f'but {word!r} is {len(pieces)}: {shown}. Take a word of one '
                f'token{near and ", such as "}{near}.'
            )
        token: int = self._tokenizer.convert_tokens_to_ids(pieces[0])
        return token

    def _whole_words(self) -> dict[str, int]:
        """The ids of the tokens that are whole words, by their letters."""
        tokens = self._tokenizer.get_vocab()
        whole = {
            token.removesuffix(WORD_END).removeprefix(WORD_START): number
            for token, number in tokens.items()
            if token.endswith(WORD_END) or token.startswith(WORD_START)
        }
        # BERT marks what is inside of a word alone
        return whole or {
            token: number
            for token, number in tokens.items()
            if not token.startswith(WORD_INSIDE)
        }

    def _suggest(self, pieces: Sequence[str], table: Tensor) -> str:
        """Words of one token that are near to the mean of some tokens."""
        ids = self._whole_words()
        known = [w for w in ids if w.isascii() and w.isalpha()]
        # the tokenizers of tests have letters alone
        words = [w for w in known if len(w) >= SHORTEST] or known
        # ends of words that never stood alone have hardly been trained: their
        # rows are as short as at the start
        norms = table.detach().float().norm(dim=1)
        least = norms[[ids[word] for word in words]].quantile(UNTRAINED)
        words = [word for word in words if norms[ids[word]] >= least]
        rows = F.normalize(table.detach().float(), dim=1)
        own = self._tokenizer.convert_tokens_to_ids(list(pieces))
        near = rows[[ids[word] for word in words]] @ (
            rows[own].mean(0) if own else rows.mean(0)
        )
        order = near.argsort(descending=True, stable=True)[:5].tolist()
        return ', '.join(repr(words[number]) for number in order)

    def count(self, text: str) -> int:
        """The number of tokens of a text, without start and end marks."""
        return len(self.ids(text))

    def cut_off(self, text: str) -> list[str]:
        """The placeholders of which a text has not all tokens that are read.

        Args:
            text: Any text; what does not fit is not read.

        Returns:
            Each once.
        """
        read = set(self.ids(text)[: self.room()])
        return [
            word
            for word in dict.fromkeys(self.find(text))
            if not read.issuperset(self.size + r for r in self.rows_of(word))
        ]

    def find(self, text: str) -> list[str]:
        """The placeholders in a text, in the order in which they occur."""
        return [part for part in self._split(text) if isinstance(part, str)]

    def find_elsewhere(self, text: str) -> dict[str, str]:
        """The names in a text that a placeholder has in its file alone.

        Args:
            text: Any text; where it has the placeholder too, the other name
                is a word like any.

        Returns:
            Placeholders by their names in the text.
        """
        found = self.find(text)
        text = unicodedata.normalize('NFC', text)
        return {
            name: placeholder
            for name, placeholder in self.called_elsewhere.items()
            if placeholder not in found
            and re.search(word_pattern(name), text, re.IGNORECASE)
        }

    def replace(self, text: str, words: Mapping[str, str]) -> str:
        """A text with other words in place of placeholders.

        Args:
            text: Any text.
            words: By placeholder.

        Returns:
            Likewise; placeholders that are not named stay.
        """
        parts, last = [], 0
        text = unicodedata.normalize('NFC', text)
        for start, end, placeholder in self._places(text):
            parts.append(text[last:start])
            parts.append(words.get(placeholder, text[start:end]))
            last = end
        return ''.join([*parts, text[last:]])

    def _places(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Where placeholders begin and end in a text."""
        if self._pattern is not None:
            names = list(self._rows)
            for found in self._pattern.finditer(text):
                assert found.lastindex is not None
                yield *found.span(), names[found.lastindex - 1]

    def _split(self, text: str) -> Iterator[str | list[int]]:
        """The placeholders of a text, and the ids of what is between them."""
        check_unicode('text', text)
        text = unicodedata.normalize('NFC', text)  # as the tokenizer does
        last = 0
        for start, end, placeholder in self._places(text):
            yield self._tokenize(text[last:start])
            yield placeholder
            last = end
        yield self._tokenize(text[last:])

    def room(self, free: int = 0) -> int:
        """How many tokens of a text fit between the marks.

        Args:
            free: Positions at the end that they are not to reach; the end mark
                may.

        Returns:
            At least 0.
        """
        left = self.num_positions - len(self._start) - max(free, 1)
        return max(left, 0)

    def _tokenize(self, text: str) -> list[int]:
        """The ids of a text without placeholders."""
        # not verbose: "longer than the model takes" is what is to be found out
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, verbose=False
        ).input_ids
        return ids

    def ids(
        self,
        text: str,
        lengths: Mapping[str, int] | None = None,
        group: int = 0,
    ) -> list[int]:
        """The ids of a text of any length, without start and end marks.

        Args:
            lengths: How many of its tokens a placeholder is, where not all.
            group: Which set of tokens, of placeholders with several.

        Returns:
            Each placeholder as its new tokens.
        """
        lengths = lengths or {}
        ids: list[int] = []
        for part in self._split(text):
            if isinstance(part, str):
                rows = self.rows_of(part, group)[: lengths.get(part)]
                ids.extend(self.size + row for row in rows)
            else:
                ids.extend(part)
        return ids

    def encode(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        lengths: Mapping[str, int] | None = None,
        group: int = 0,
    ) -> Tensor:
        """Turns texts into ids, padded to all M positions.

        Args:
            texts: B texts.
            max_tokens: Tokens to keep of each, without start and end marks.
                Defaults to what fits.
            lengths: How many of its tokens a placeholder is, where not all.
            group: Which set of tokens, of placeholders with several.

        Returns:
            (B, M) int64.
        """
        most = self.room()
        if max_tokens is not None:
            most = min(max_tokens, most)
        rows = []
        for text in texts:
            ids = self.ids(text, lengths, group)[:most]
            row = [*self._start, *ids, self._end]
            padding = self.num_positions - len(row)
            row += [self._tokenizer.pad_token_id] * padding
            rows.append(row)
        return torch.tensor(rows)


class PlainVocabulary(Vocabulary):
    """One without new words: a placeholder is read as it is spelled."""

    @override
    def add(self, placeholder: str, num_vectors: int, groups: int = 1) -> None:
        """Nothing."""
