"""Prompts with weights, and of any length, as compel reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import isfinite
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.utils.errors import UserError, shortened

# Stands for a placeholder while compel reads a prompt: one letter that nobody
# writes, since '<my.cat>' has signs of its syntax in it.
FIRST_SIGN = 0x100000


class WeightedText:
    """Reads prompts by the syntax of compel, for drawing.

    ``(word)1.3`` and ``word++`` weigh what is said, ``(...).blend(...)`` and
    ``(...).and(...)`` put texts together. A text of more tokens than the text
    encoder has positions M is read in chunks, each with its own marks.

    Args:
        sd: The frozen model.
        vocabularies: Of its text encoders with new words, by default without.
        rows: Of the new words, as :meth:`Backbone.encode_ids` takes them.
        lengths: How many of its tokens a new word is, where not all.

    Raises:
        ValueError: If compel is not installed, or does not know the model's
            kind of text encoder.
    """

    def __init__(
        self,
        sd: Backbone,
        vocabularies: Sequence[Vocabulary] | None = None,
        rows: Tensor | None = None,
        lengths: Mapping[str, int] | None = None,
    ) -> None:
        if not sd.reads_weights:
            raise UserError(
                '`prompt_weighting` needs a Stable Diffusion 1.x, 2.x or XL, '
                f'but {sd.backbone!r} is a {sd.title}. Leave it out.'
            )
        self._sd = sd
        self._package = _compel()
        self._vocabularies = list(vocabularies or sd.vocabularies)
        self._signs = {
            word: chr(FIRST_SIGN + number)
            for number, word in enumerate(self._vocabularies[0].placeholders)
        }
        self._words = {ord(sign): word for word, sign in self._signs.items()}
        parts: list[Tensor | None] = [None] * len(sd.tokenizers)
        if rows is not None:
            widths = [table.shape[1] for table in sd.token_tables]
            parts = list(rows.split(widths, dim=1))
        self._compels = [
            self._reader(number, own, lengths or {})
            for number, own in enumerate(parts)
        ]

    def _reader(
        self, number: int, rows: Tensor | None, lengths: Mapping[str, int]
    ) -> Any:
        """The reader of one text encoder."""
        kinds = self._package.ReturnedEmbeddingsType
        kind = kinds.LAST_HIDDEN_STATES_NORMALIZED
        if len(self._sd.tokenizers) > 1:
            kind = kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        return self._package.Compel(
            tokenizer=_Tokenizer(
                self._vocabularies[number],
                self._sd.tokenizers[number],
                self._words,
                lengths,
            ),
            text_encoder=_TextModel(self._sd, number, rows),
            truncate_long_prompts=False,
            returned_embeddings_type=kind,
        )

    @torch.no_grad()
    def read(self, texts: Sequence[str], free: int = 0) -> list[Conditioning]:
        """Encodes prompts.

        Args:
            texts: Prompts.
            free: Positions at the end of the last chunk that no token of a
                text may reach; where one would, an empty chunk comes behind.

        Returns:
            One text each, (1, k * M, D) with as many chunks k as it needs.

        Raises:
            ValueError: If a text cannot be read, or a weight is not finite.
        """
        return [self._read(text, free) for text in texts]

    def _read(self, text: str, free: int) -> Conditioning:
        """Encodes one prompt; see :meth:`read`."""
        written = self._vocabularies[0].replace(text, self._signs)
        parsed = self._parse(written, text)
        try:
            read = [compel(written) for compel in self._compels]
            end = self._end_of(parsed.prompts[-1])
        except (ArithmeticError, AttributeError, LookupError) as error:
            raise self._unread(text, error) from None
        except (RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, RuntimeError) and (
                'token sequence' not in str(error)  # it lost count of them
            ):
                raise
            raise self._unread(text, error) from None
        tokens = torch.cat(read, dim=-1).float()
        if not tokens.isfinite().all():
            raise UserError(
                f'The weights of the prompt {shortened(text)} make numbers '
                'that are not finite. Take smaller ones, about 0.5 to 1.5.'
            )
        found = Conditioning(tokens, self._pooled(written))
        size = self._sd.num_positions
        # as without weights, the end mark alone may be where it is free
        if free and end > size - free:
            return _padded(found, tokens.shape[1] + size, self._empty)
        return found

    def _parse(self, written: str, text: str) -> Any:
        """What compel understands, checked that all of it takes effect."""
        try:
            parsed = self._package.Compel.parse_prompt_string(written)
        except Exception as error:  # whatever its parser stumbles over
            raise self._unread(text, error) from None
        if not parsed.prompts:
            raise UserError(f'The prompt {shortened(text)} has no word in it.')
        if parsed.lora_weights or any(
            each.wants_cross_attention_control for each in parsed.prompts
        ):
            raise UserError(
                f'The prompt {shortened(text)} has a `.swap()` or '
                '`withLora()`, which would change nothing here. Take it out.'
            )
        for weight in _weights(parsed):
            if not isfinite(weight):
                raise UserError(
                    'A weight must be a finite number, but got '
                    f'{weight} in the prompt {shortened(text)}.'
                )
        return parsed

    def _unread(self, text: str, error: Exception) -> UserError:
        """What to tell of a prompt over which compel stumbles."""
        found = ' '.join(str(error).translate(self._words).split())
        return UserError(
            f'The prompt {shortened(text)} is none that compel reads '
            f'({type(error).__name__}: {found[:200]}). Weights are such as '
            '(word)1.3 and word++; \\( and \\) are plain brackets.'
        )

    def _pooled(self, written: str) -> Tensor | None:
        """The pooled text, which compel does not weigh, (1, P)."""
        if len(self._compels) == 1:
            return None
        compel = self._compels[-1]
        # not its `requires_pooled`, which breaks `.and()` with weights
        pooled: Tensor = compel.conditioning_provider.get_pooled_embeddings(
            [written], device=compel.device
        )
        return pooled.float()

    def _end_of(self, part: Any) -> int:
        """Where the end mark of the last chunk of a text stands."""
        chunks = [
            compel.conditioning_provider.get_token_ids_and_expand_weights(
                [each.text for each in flat.children],
                [0.0] * len(flat.children),  # so marks and padding are 1
                device='cpu',
            )[1].view(-1, self._sd.num_positions)
            for compel in self._compels
            for flat in _flat(part)
        ]
        most = max(map(len, chunks))  # a blend is as long as its longest
        ends = [
            1 + max(torch.where(each[-1] == 0)[0].tolist(), default=0)
            for each in chunks
            if len(each) == most
        ]
        return max(ends)

    @property
    def _empty(self) -> Tensor:
        """An empty chunk, (1, M, D)."""
        return self._sd.encode_text(['']).tokens

    @torch.no_grad()
    def pair(
        self,
        texts: Sequence[Conditioning],
        negatives: Sequence[str] | None,
    ) -> tuple[Conditioning, Conditioning]:
        """What guidance moves towards and away from, all of one length.

        Args:
            texts: P times one text, as they come from :meth:`read`.
            negatives: P prompts; None for what the model moves away from
                where none is given.

        Returns:
            P texts each, empty chunks behind those that are shorter.

        Raises:
            ValueError: See :meth:`read`.
        """
        empty = padding = self._empty
        if negatives is None:
            nothing = self._sd.encode_nothing(1)
            padding = nothing.tokens
            others = [nothing] * len(texts)
        else:
            distinct = list(dict.fromkeys(negatives))
            known = dict(zip(distinct, self.read(distinct), strict=True))
            others = [known[text] for text in negatives]
        length = max(map(_length, [*texts, *others]))
        return (
            Conditioning.cat([_padded(t, length, empty) for t in texts]),
            Conditioning.cat([_padded(t, length, padding) for t in others]),
        )


class _Tokenizer:
    """A vocabulary, as compel wants a tokenizer."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokenizer: Any,
        words: Mapping[int, str],
        lengths: Mapping[str, int],
    ) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = tokenizer
        self._words = words
        self._lengths = lengths
        self.model_max_length = vocabulary.num_positions
        self.bos_token_id: int = tokenizer.bos_token_id
        self.eos_token_id: int = tokenizer.eos_token_id
        self.pad_token_id: int = tokenizer.pad_token_id

    def __call__(
        self, texts: Sequence[str], truncation: bool = False, **options: Any
    ) -> dict[str, list[list[int]]]:
        most = self._vocabulary.room() if truncation else None
        ids = [
            self._vocabulary.ids(text.translate(self._words), self._lengths)
            for text in texts
        ]
        marks = self.bos_token_id, self.eos_token_id
        return dict(input_ids=[[marks[0], *i[:most], marks[1]] for i in ids])

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Letters by which compel finds where a chunk may end."""
        # '' ends no word, so none of several vectors is cut in two
        size = self._vocabulary.size
        convert = self._tokenizer.convert_ids_to_tokens
        return [convert(i) if i < size else '' for i in ids]


class _TextModel:
    """One text encoder of a frozen model, as compel wants it."""

    def __init__(self, sd: Backbone, number: int, rows: Tensor | None) -> None:
        self._sd = sd
        self._number = number
        self._rows = rows

    @property
    def device(self) -> torch.device:
        return self._sd.device

    @property
    def dtype(self) -> torch.dtype:
        return self._sd.token_tables[self._number].dtype

    def __call__(
        self, ids: Tensor, mask: Tensor | None = None, **options: Any
    ) -> Any:
        if mask is not None and mask.all():
            mask = None  # the same, as texts without weights are read
        return self._sd.run_text_model(
            self._number, ids.long(), self._rows, mask
        )


def _compel() -> ModuleType:
    """compel, with all that it needs."""
    try:
        import compel.embeddings_provider
        from pyparsing import ParserElement
    except ImportError as error:
        raise UserError(
            '`prompt_weighting` needs compel, which reads the weights, but it '
            f'cannot be imported: {error}. `pip install compel`, or leave the '
            'option out.'
        ) from None
    # Else each bracket within another takes four times as long, even minutes.
    # It is for the whole process, as matplotlib's own, and changes no result.
    ParserElement.enable_packrat()
    return compel


def _flat(part: Any) -> list[Any]:
    """The texts of one part of a prompt, several in a blend."""
    return list(getattr(part, 'prompts', [part]))


def _weights(parsed: Any) -> Iterator[float]:
    """All weights of a prompt."""
    yield from parsed.weights
    for part in parsed.prompts:
        yield from getattr(part, 'weights', [])
        for flat in _flat(part):
            yield from (each.weight for each in flat.children)


def _length(text: Conditioning) -> int:
    """Its positions."""
    return text.tokens.shape[-2]


def _padded(text: Conditioning, length: int, chunk: Tensor) -> Conditioning:
    """A text with chunks, (1, M, D), behind it, up to a length."""
    missing = (length - _length(text)) // chunk.shape[1]
    if not missing:
        return text
    tokens = text.tokens  # (1, m, D) or (1, S, L, m, D)
    behind = chunk.repeat(1, missing, 1)
    behind = behind.expand(*tokens.shape[:-2], *behind.shape[1:])
    return text.with_tokens(torch.cat([tokens, behind], dim=-2))


def join_alike(
    pairs: Sequence[tuple[Conditioning, Conditioning]],
) -> list[tuple[Conditioning, Conditioning]]:
    """Joins texts that can be drawn together: neighbours of one length.

    Args:
        pairs: What guidance moves towards and away from.

    Returns:
        The same texts in the same order.
    """
    joined = []
    for _, group in groupby(pairs, lambda pair: _length(pair[0])):
        texts, negatives = zip(*group, strict=True)
        joined.append((Conditioning.cat(texts), Conditioning.cat(negatives)))
    return joined
