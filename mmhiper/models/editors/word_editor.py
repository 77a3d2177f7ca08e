"""Editors whose texts may have new words in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import override

from mmhiper.io import read_token_file
from mmhiper.io.mmhiper_format import entries_of, words_of
from mmhiper.io.token_file import quoted
from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.denoising import EmbeddingEditor
from mmhiper.models.editors.texts import check_texts
from mmhiper.models.embeddings import TokenEmbedding
from mmhiper.models.pipelines import make_pipeline
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.models.weighted_text import WeightedText
from mmhiper.models.words import (
    Words,
    check_widths,
    match_words,
    read_words,
)
from mmhiper.utils.arguments import OfThisRun
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import same_word
from mmhiper.utils.randomness import generator_of

MOST_IMAGES = 1000  # with a token of their own


class WordEditor(EmbeddingEditor):
    """Reads texts with learned words in them, and with words from files.

    What it has of words: their tokens, the rows of those that are learned,
    and the ways in and out. How they are learned is a subclass's.

    Args:
        sd: The frozen model or its config.
        placeholder_token: See :class:`TextualInversion`.
        initialize_token: Likewise.
        num_vectors_per_token: Likewise.
        per_image_tokens: Likewise.
        embedding: Likewise.
        directional: Likewise.
        val_prompts: By default "a photo of" each word.
        **options: See :class:`EmbeddingEditor`.

    Raises:
        FileNotFoundError: If there is no file ``embedding``.
        ValueError: If a placeholder is no new word, the initialiser is
            several tokens, a number is out of range, a validation prompt
            lacks a placeholder, or the file has none of the words.
    """

    embedding: TokenEmbedding

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        placeholder_token: str | list[str],
        initialize_token: str | list[str | None] | None = None,
        num_vectors_per_token: int | list[int] = 1,
        per_image_tokens: int = 0,
        embedding: Annotated[str | None, OfThisRun()] = None,
        directional: bool = False,
        val_prompts: str | list[str] | None = None,
        **options: Any,
    ) -> None:
        words = _list_words(placeholder_token)
        if val_prompts is None:
            val_prompts = [f'a photo of {word}' for word in words]
        super().__init__(sd, val_prompts=val_prompts, **options)
        counts = _one_each(
            'num_vectors_per_token', num_vectors_per_token, words
        )
        most = self.sd.room()
        for count in counts.values():
            check_range('num_vectors_per_token', count, 1, most)
        # a file may ask for them
        check_range('per_image_tokens', per_image_tokens, 0, MOST_IMAGES)
        self.placeholder_token = placeholder_token
        self.initialize_token = initialize_token
        self.num_vectors_per_token = num_vectors_per_token
        self.per_image_tokens = per_image_tokens
        self.directional = directional
        self._initializers = _one_each(
            'initialize_token', initialize_token, words
        )
        # placeholders by what they are called in their files
        self._called_elsewhere: dict[str, str] = {}
        self._set_words(counts)
        self._check_val_prompts()
        if embedding is not None:
            self._start_from(embedding)

    @property
    @override
    def vocabulary(self) -> Vocabulary:
        """The words of the (first) text encoder, with the new ones."""
        return self.words.vocabularies[0]

    def _set_words(
        self,
        counts: Mapping[str, int],
        loaded: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Makes tokens of the words, and rows of the learned ones."""
        images, groups = self.per_image_tokens, self.num_groups
        self.words = Words(
            self.sd.vocabularies, counts, images, loaded, groups
        )
        self.embedding = TokenEmbedding(
            {
                word: self._initial_rows(word, groups * n)
                for word, n in counts.items()
            },
            self._random_rows(images, 'images') if images else None,
            self._usual_norms() if self.directional else None,
        )
        self._note_names({})

    @property
    def num_groups(self) -> int:
        """How many sets of rows each word has, G.

        An editor whose words vary has more than one; row g * n + i is the
        i-th of n in set g.
        """
        return 1

    @property
    def placeholders(self) -> list[str]:
        """The words that prompts may use: the learned and the loaded ones."""
        return self.words.placeholders

    def _check_val_prompts(self) -> None:
        """Refuses a validation prompt without a placeholder."""
        check_texts('val_prompts', self.val_prompts)
        for prompt in self.val_prompts:
            if not self.vocabulary.find(prompt):
                raise UserError(
                    '`val_prompts` must have the placeholder '
                    f'{quoted(self.words.learned)} in them, but got '
                    f'{prompt!r}.'
                )

    def _initial_rows(self, word: str, count: int) -> Tensor:
        """Start values of a placeholder, (n, D)."""
        initializer = self._initializers[word]
        if initializer is None:
            return self._random_rows(count, word)
        row = self.sd.row_of(initializer)
        return row.repeat(count, 1).to(self.sd.device)

    def _usual_norms(self) -> list[tuple[int, float]]:
        """The width of each token table, and the median norm of its rows."""
        return [
            (table.shape[1], float(table.float().norm(dim=1).median()))
            for table in self.sd.token_tables
        ]

    def _random_rows(self, count: int, origin: str) -> Tensor:
        """Random rows like those of the tables, (count, D)."""
        tables = [table.float() for table in self.sd.token_tables]
        mean = torch.cat([table.mean(0) for table in tables])
        std = torch.cat([table.std(0) for table in tables])
        noise = torch.randn(
            (count, len(mean)), generator=generator_of('rows', origin)
        ).to(mean.device)
        return (mean + noise * std).to(self.sd.device)

    @torch.no_grad()
    def _start_from(self, path: str) -> None:
        """Takes the values of the words that a file has."""
        own = self.words.learned
        tokens = read_token_file(path, own[0] if len(own) == 1 else None)
        check_widths(tokens, path, self._widths, self.sd.backbone)
        rows = {word: tokens.rows_of(word) for word in tokens.placeholders}
        found = match_words(rows, self.words.learned)
        if not found:
            raise UserError(
                f'`embedding` must hold {quoted(self.words.learned)}, but '
                f'{path!r} has {quoted(rows)}. Rename one: `mmhiper convert '
                'FILE OUT --placeholder NEW`.'
            )
        for word, start in found.items():
            count = self.embedding.counts[word]
            if len(start) > count:
                raise UserError(
                    f'`num_vectors_per_token` is {count} for {word!r}, but '
                    f'{path!r} has {len(start)} vectors of it to start from. '
                    f'Set it to {len(start)} or more.'
                )
            self.embedding.parameter_of(word)[: len(start)] = start

    # --------------------------------------------------------- conditioning
    def encode(self, texts: list[str]) -> Conditioning:
        """Encodes texts in which placeholders may occur.

        Args:
            texts: B texts.

        Returns:
            B texts; gradients reach the learned rows of the words in them.
        """
        used = {word for text in texts for word in self.vocabulary.find(text)}
        groups = zip(
            *(
                self.words.encode(texts, self.embedding.active, group)
                for group in range(self.num_groups)
            ),
            strict=True,
        )
        # all sets in one batch, (G * B, M) for each text encoder
        ids = [torch.cat(each) for each in groups]
        return self.arrange(self.sd.encode_ids(ids, self._rows(used)))

    def _rows(self, used: set[str]) -> Tensor:
        """The rows of all words; gradients reach those that are used."""
        rows = [
            _if_used(self.embedding.rows_of(word), word in used)
            for word in self.words.learned
        ]
        if self.embedding.image_rows is not None:
            mixed = not used.isdisjoint(self.words.of_images)
            rows.append(_if_used(self.embedding.image_rows, mixed))
        rows += [
            each.to(rows[0], non_blocking=True)
            for each in self.words.loaded.values()
        ]
        return torch.cat(rows)

    def arrange(self, texts: Conditioning) -> Conditioning:
        """Where the sets of rows of a text act.

        Args:
            texts: G times B texts, those of a set together.

        Returns:
            B texts.
        """
        return texts

    @override
    def condition(self, prompts: list[str]) -> Conditioning:
        """Prompts with the learned and the loaded words in them.

        Warns about a prompt in which no placeholder is, or takes effect.
        """
        return self.condition_beside(prompts, [''] * len(prompts))

    @override
    def condition_beside(
        self, prompts: list[str], negatives: list[str], **options: Any
    ) -> Conditioning:
        """Likewise; a word in the negative prompt takes effect too."""
        self._warn_without_word(prompts, negatives)
        limit = self.sd.room()
        for text in [*prompts, *negatives]:
            count = self.vocabulary.count(text)
            if count > limit:
                warnings.warn(
                    f'A prompt of {count} tokens is cut to its first {limit}; '
                    'a placeholder behind them takes no effect. The prompt '
                    f'is {text!r}.',
                    stacklevel=3,
                )
        return self.encode(prompts)

    @override
    def condition_weighted(
        self, prompts: list[str], negatives: list[str] | None, **options: Any
    ) -> tuple[Conditioning, Conditioning]:
        """All vectors of a word have its weight."""
        others = [''] * len(prompts) if negatives is None else negatives
        self._warn_without_word(prompts, others)
        reader = WeightedText(
            self.sd,
            self.words.vocabularies,
            self._rows(set()),
            self.embedding.active,
        )
        return reader.pair(reader.read(prompts), negatives)

    def _warn_without_word(
        self, prompts: list[str], negatives: list[str]
    ) -> None:
        """Warns about a prompt in which no placeholder is."""
        find = self.vocabulary.find
        for prompt, negative in zip(prompts, negatives, strict=True):
            if not find(prompt) and not find(negative):
                warnings.warn(
                    f'The prompt {prompt!r} has no placeholder in it, so '
                    'nothing that was learned takes effect. Known: '
                    f'{", ".join(self.placeholders)}.',
                    stacklevel=4,
                )

    @override
    def encode_negative(self, texts: list[str]) -> Conditioning:
        """Negative prompts, in which loaded words may occur too."""
        return self.encode(texts)

    # ------------------------------------------------------ coming and going
    def load_embeddings(
        self,
        paths: Sequence[str | Path],
        rename: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Adds the words of embedding files of any known format.

        Either all are added or, on an error, none. They are used and not
        trained, and are in no checkpoint of this editor.

        Args:
            paths: Files, see :mod:`mmhiper.io`.
            rename: New placeholders by those in the files.

        Returns:
            The placeholders that were added.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a file is no embedding, or of another width, a
                word cannot be a placeholder, or none of the files has a word
                of ``rename``.
        """
        paths = [paths] if isinstance(paths, str | Path) else paths
        added = read_words(
            paths,
            rename or {},
            self.vocabulary,
            self._widths,
            self.sd.backbone,
        )
        self._add_loaded(added)
        self._note_names(rename or {})
        return list(added)

    def _note_names(self, renamed: Mapping[str, str]) -> None:
        """Keeps what words were called, to say it where a prompt has it."""
        self._called_elsewhere |= renamed
        self.vocabulary.called_elsewhere = self._called_elsewhere

    def _add_loaded(self, rows: Mapping[str, Tensor]) -> None:
        """Makes tokens of loaded words."""
        self.words = Words(
            self.sd.vocabularies,
            self._counts,
            self.per_image_tokens,
            {**self.words.loaded, **rows},
            self.num_groups,
        )
        self._note_names({})

    @property
    def _counts(self) -> dict[str, int]:
        """How many tokens each learned word is in a text, n."""
        rows = self.embedding.counts
        return {word: rows[word] // self.num_groups for word in rows}

    @property
    def _widths(self) -> list[int]:
        """How wide the rows of each text encoder are."""
        return [table.shape[1] for table in self.sd.token_tables]

    @override
    def to_diffusers(self) -> Any:
        """A plain pipeline with the learned words and the loaded ones.

        Returns:
            A ``StableDiffusionPipeline``, or that of XL, with text encoders
            and tokenizers of its own.

        Raises:
            ValueError: If a placeholder is a sign of the vocabulary, ``*``.
        """
        signs = set(self.placeholders) & set(self.sd.tokenizer.get_vocab())
        if signs:
            raise UserError(
                'diffusers takes no placeholder that is in its vocabulary, '
                f'such as {quoted(signs)}. Give it a file under another name: '
                "`pipeline.load_textual_inversion(FILE, token='<new-name>')`."
            )
        return make_pipeline(self.sd, {**self._active(), **self.words.loaded})

    def _active(self) -> dict[str, Tensor]:
        """The rows of each learned word that are in use, (k, D)."""
        words = self.words.learned
        return {word: self.embedding.active_rows(word) for word in words}

    # ---------------------------------------------------------- checkpoints
    @override
    def learned_state(self) -> dict[str, Tensor]:
        """The rows of the placeholders, named as the field names them.

        So the export of a word is a file that others read as it is: with one
        text encoder ``load_textual_inversion`` of diffusers, whose name is
        the placeholder itself; with the two of Stable Diffusion XL the tools
        that know ``clip_l`` and ``clip_g``.

        Returns:
            (k, D) per word and text encoder, on the CPU.
        """
        return entries_of(
            {
                word: [
                    part.clone()
                    for part in rows.detach().cpu().split(self._widths, dim=1)
                ]
                for word, rows in self._active().items()
            }
        )

    @override
    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:
        """Takes words too: of an export, or of a file from elsewhere."""
        entries = {
            name.removeprefix(prefix): tensor
            for name, tensor in state_dict.items()
            if name.startswith(prefix)
        }
        own = local_metadata.get('editor') in (None, type(self).__name__)
        if own and entries and _are_words(entries):
            for name in entries:
                del state_dict[prefix + name]
            for name, tensor in self._state_of(entries).items():
                state_dict[f'{prefix}embedding.{name}'] = tensor
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args
        )

    def _state_of(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of the embedding with the words of a file."""
        # There are as many vectors as in the file afterwards, at least;
        # further words of it are loaded.
        own = self.words.learned
        words = {}
        for word, parts in words_of(entries, own[0]).items():
            if len({part.shape[:-1] for part in parts}) > 1:
                raise UserError(
                    f'The word {word!r} must have as many vectors for each '
                    'text encoder, but has '
                    f'{" and ".join(str(tuple(p.shape)) for p in parts)}.'
                )
            words[word] = torch.cat(parts, dim=-1)
        found = match_words(words, own)
        if len(found) < len(own):
            raise UserError(
                f'Wanted the words {quoted(own)}, but the file has '
                f'{quoted(words)}. Give the editor these as its '
                '`placeholder_token`.'
            )
        known = set(map(same_word, own))
        strange = [word for word in words if same_word(word) not in known]
        if len(own) == len(strange) == len(words) == 1:
            self._note_names({next(iter(words)): own[0]})
            warnings.warn(
                f'The word {quoted(words)} of the file is called {own[0]!r} '
                'here, as in the config.',
                stacklevel=2,
            )
        if {rows.shape[1:] for rows in words.values()} != {
            (sum(self._widths),)
        }:
            return self.embedding.state_with(found)  # which does not fit
        odd = [w for w in own if len(found[w]) % self.num_groups]
        if odd:
            raise UserError(
                f'The word {odd[0]!r} must have a multiple of '
                f'{self.num_groups} vectors, one set for each place where it '
                f'acts, but has {len(found[odd[0]])}.'
            )
        counts = {
            word: max(count, len(found[word]) // self.num_groups)
            for word, count in self._counts.items()
        }
        others = strange if len(words) > 1 else []
        loaded = {**self.words.loaded, **{w: words[w] for w in others}}
        if counts != self._counts:
            self._set_words(counts, loaded)
            numbers = list(counts.values())
            single = isinstance(self.placeholder_token, str)
            self.num_vectors_per_token = numbers[0] if single else numbers
        elif others:
            self._add_loaded(loaded)
        return self.embedding.state_with(found)


def _are_words(entries: Mapping[str, Tensor]) -> bool:
    """Whether these are rows of words, and no state dict of an editor."""
    return not any(name.startswith('embedding.') for name in entries) and all(
        tensor.ndim == 2 for tensor in entries.values()
    )


def _if_used(rows: Tensor, used: bool) -> Tensor:
    """Rows, cut off from learning where no text of a step has them."""
    # So the optimizer finds no gradient, and leaves them alone; one of zeros
    # would have it move them by its momentum.
    return rows if used else rows.detach()


def _list_words(placeholder_token: str | Sequence[str]) -> list[str]:
    """The placeholders, checked that there is one, and none twice."""
    if isinstance(placeholder_token, str):
        return [placeholder_token]
    words = list(placeholder_token)
    if not words or len(set(words)) < len(words):
        raise UserError(
            '`placeholder_token` must be one new word or several different '
            f'ones, but got {words}.'
        )
    return words


def _one_each(name: str, given: Any, words: Sequence[str]) -> dict[str, Any]:
    """What belongs to each word: one value for all, or a list."""
    if not isinstance(given, list | tuple):
        given = [given] * len(words)
    if len(given) != len(words):
        raise UserError(
            f'`{name}` must be one value or one for each of '
            f'{quoted(words)}, but got {len(given)}.'
        )
    return dict(zip(words, given, strict=True))


def check_range(
    name: str, number: float, least: float, most: float | None = None
) -> None:
    """Refuses a number out of range.

    Args:
        name: Of the option.
        number: What it is.
        least: What it may be.
        most: Likewise.

    Raises:
        ValueError: If it is out of range.
    """
    if number < least or (most is not None and number > most):
        wanted = f'at least {least}'
        if most is not None:
            wanted = f'in [{least}, {most}]'
        raise UserError(f'`{name}` must be {wanted}, but got {number}.')
