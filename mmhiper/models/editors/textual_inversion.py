"""Textual Inversion: a new word for what a few pictures show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmhiper.io import XL_NAMES, TokenFile, read_token_file
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.base import (
    EmbeddingEditor,
    Preprocessing,
    check_texts,
)
from mmhiper.models.embeddings import TokenEmbedding
from mmhiper.models.pipelines import make_pipeline
from mmhiper.models.stable_diffusion import StableDiffusion
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.registry import MODELS
from mmhiper.utils.errors import UserError
from mmhiper.utils.randomness import generator_of, run_state

MOST_IMAGES = 1000  # with a token of their own


@MODELS.register_module()
class TextualInversion(EmbeddingEditor):
    """A word learned from 3 to 5 pictures (arXiv 2208.01618).

    A placeholder becomes new tokens; their rows of the token table, and
    nothing else, are optimised so that the frozen model denoises the pictures
    when it reads sentences with the placeholder in them (eq. 2).

    Args:
        sd (dict or StableDiffusion): The frozen model or its config.
        placeholder_token (str): The new word, such as ``<cat-toy>``.
        initialize_token (str, optional): A word of one token whose row is
            the start value. None starts from random numbers of the table's
            own mean and standard deviation.
        num_vectors_per_token (int): New tokens n behind the placeholder.
        val_prompts (str or list[str], optional): Prompts of previews and
            tests, with the placeholder in them.
        progressive_interval (int, optional): Begin with one vector and take
            one more every so many iterations (sec. 5.2; the paper: 2000).
            None uses all from the start.
        per_image_tokens (int): The number of training pictures where each
            has one more token of its own in training, for what is particular
            to it (sec. 5.2); 0 for none.
        embedding_reg_weight (float): Weight of the mean squared distance
            between the vectors and their start values (sec. 5.2).
        data_preprocessor (dict, optional): See :class:`EmbeddingEditor`;
            ``dict(random_flip=True)`` mirrors pictures half the time.
        hold_outside (float): See :class:`EmbeddingEditor`.

    Raises:
        ValueError: If the placeholder is no new word, the initialiser is
            several tokens, a number is out of range, or a validation prompt
            lacks the placeholder.

    Note:
        Stable Diffusion XL has two text encoders with a table each. A row is
        then the rows of both side by side, as its conditioning is the outputs
        of both side by side.

    Note:
        The official code penalises the mean of the vectors' whole Gram matrix
        of differences, here it is the mean of its diagonal. For one vector
        they are the same.
    """

    embedding: TokenEmbedding

    def __init__(
        self,
        sd: dict[str, Any] | StableDiffusion,
        placeholder_token: str,
        initialize_token: str | None = None,
        num_vectors_per_token: int = 1,
        val_prompts: str | list[str] | None = None,
        progressive_interval: int | None = None,
        per_image_tokens: int = 0,
        embedding_reg_weight: float = 0.0,
        data_preprocessor: Preprocessing = None,
        hold_outside: float = 0.0,
    ) -> None:
        if val_prompts is None:
            val_prompts = f'a photo of {placeholder_token}'
        super().__init__(sd, data_preprocessor, val_prompts, hold_outside)
        most = self.sd.num_positions - 2
        if not 1 <= num_vectors_per_token <= most:
            raise UserError(
                f'`num_vectors_per_token` must be in [1, {most}], but got '
                f'{num_vectors_per_token}.'
            )
        if per_image_tokens > MOST_IMAGES:  # a file may ask for it
            raise UserError(
                f'`per_image_tokens` must be at most {MOST_IMAGES}, but got '
                f'{per_image_tokens}.'
            )
        for name, number, least in (
            ('progressive_interval', progressive_interval, 1),
            ('per_image_tokens', per_image_tokens, 0),
            ('embedding_reg_weight', embedding_reg_weight, 0),
        ):
            if number is not None and number < least:
                raise UserError(
                    f'`{name}` must be at least {least}, but got {number}.'
                )
        self.placeholder_token = placeholder_token
        self.initialize_token = initialize_token
        self.num_vectors_per_token = num_vectors_per_token
        self.progressive_interval = progressive_interval
        self.embedding_reg_weight = embedding_reg_weight
        self._image_tokens = [f'<|image{i}|>' for i in range(per_image_tokens)]
        self.vocabularies = [each.copy() for each in self.sd.vocabularies]
        for vocabulary in self.vocabularies:
            vocabulary.add(placeholder_token, num_vectors_per_token)
            for token in self._image_tokens:
                vocabulary.add(token, 1)
        self._loaded: dict[str, Tensor] = {}
        self._check_val_prompts()
        self.embedding = TokenEmbedding(
            self._initial_rows(),
            self._random_rows(per_image_tokens, 'images')
            if per_image_tokens
            else None,
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the (first) text encoder, with the new ones."""
        return self.vocabularies[0]

    def _check_val_prompts(self) -> None:
        """Refuses a validation prompt without the placeholder."""
        check_texts('val_prompts', self.val_prompts)
        for prompt in self.val_prompts:
            if not self.vocabulary.find(prompt):
                raise UserError(
                    '`val_prompts` must have the placeholder '
                    f'{self.placeholder_token!r} in them, but got {prompt!r}.'
                )

    def _initial_rows(self) -> Tensor:
        """Start values of the placeholder, (n, D)."""
        count = self.num_vectors_per_token
        if self.initialize_token is None:
            return self._random_rows(count, self.placeholder_token)
        token = self.sd.vocabulary.single_token(self.initialize_token)
        row = torch.cat([each[token].float() for each in self.sd.token_tables])
        return row.repeat(count, 1).to(self.sd.device)

    def _random_rows(self, count: int, origin: str) -> Tensor:
        """Random rows like those of the tables, (count, D)."""
        tables = [table.float() for table in self.sd.token_tables]
        mean = torch.cat([table.mean(0) for table in tables])
        std = torch.cat([table.std(0) for table in tables])
        noise = torch.randn(
            (count, len(mean)), generator=generator_of('rows', origin)
        ).to(mean.device)
        return (mean + noise * std).to(self.sd.device)

    # --------------------------------------------------------- conditioning
    def train_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """A sentence of each picture, with the new rows in it (eq. 2).

        Which of its sentences a picture gets depends on (seed, picture,
        iteration) alone, as noise and timestep do.

        Args:
            data_samples (list[BaseDataElement]): B elements with ``prompts``,
                sentences with the placeholder.

        Returns:
            Conditioning: B texts.
        """
        _, iteration = run_state()
        if self.progressive_interval:
            active = 1 + iteration // self.progressive_interval
            active = min(active, self.num_vectors_per_token)
            self.embedding.num_active.fill_(active)
        return self.encode(
            [
                self._with_image_token(self._sentence_of(sample), sample)
                for sample in data_samples
            ]
        )

    def plain_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The same sentences with the initialiser in them.

        Args:
            data_samples (list[BaseDataElement]): B elements with ``prompts``.

        Returns:
            Conditioning: B texts.
        """
        return self.sd.encode_text(
            [
                self._in_plain_words(self._sentence_of(sample))
                for sample in data_samples
            ]
        )

    def _in_plain_words(self, text: str) -> str:
        """A text with the initialiser in the place of the new word."""
        word = self.initialize_token or 'thing'
        return text.replace(self.placeholder_token, word)

    def _sentence_of(self, sample: BaseDataElement) -> str:
        """The sentence of a picture at this iteration of the run."""
        seed, iteration = run_state()
        prompts = self._prompts_of(sample)
        generator = generator_of(seed, sample.image_key, iteration, 'prompt')
        pick = torch.randint(len(prompts), (1,), generator=generator)
        return prompts[int(pick)]

    def _prompts_of(self, sample: BaseDataElement) -> Sequence[str]:
        """The sentences of a picture, checked."""
        prompts = sample.get('prompts')
        if not prompts or self.placeholder_token not in prompts[0]:
            raise UserError(
                'A data element needs `prompts`, sentences with the '
                f'placeholder {self.placeholder_token!r}, but has '
                f'{prompts and prompts[0]!r}. TextualInversionDataset makes '
                'them: give it the same placeholder as the model.'
            )
        checked: Sequence[str] = prompts
        return checked

    def _with_image_token(self, text: str, sample: BaseDataElement) -> str:
        """Puts a picture's own token behind the placeholder."""
        if not self._image_tokens:
            return text
        image = sample.get('image_index', 0)
        if image >= len(self._image_tokens):
            raise UserError(
                '`per_image_tokens` must be the number of training pictures, '
                f'but is {len(self._image_tokens)}, and there is a picture '
                f'number {image + 1}.'
            )
        both = f'{self.placeholder_token} {self._image_tokens[image]}'
        return text.replace(self.placeholder_token, both)

    def encode(self, texts: list[str]) -> Conditioning:
        """Encodes texts in which placeholders may occur.

        Args:
            texts (list[str]): B texts.

        Returns:
            Conditioning: B texts; gradients reach the learned rows.
        """
        own = {self.placeholder_token: int(self.embedding.num_active)}
        ids = [each.encode(texts, lengths=own) for each in self.vocabularies]
        table = self.embedding.table()
        rows = [
            each.to(table, non_blocking=True) for each in self._loaded.values()
        ]
        return self.sd.encode_ids(ids, torch.cat([table, *rows]))

    def condition(self, prompts: list[str]) -> Conditioning:
        """Prompts with the learned and the loaded words in them.

        Warns about a prompt in which no placeholder is, or takes effect.

        Args:
            prompts (list[str]): B prompts.

        Returns:
            Conditioning: B texts.
        """
        limit = self.sd.num_positions - 2
        for prompt in prompts:
            if not self.vocabulary.find(prompt):
                warnings.warn(
                    f'The prompt {prompt!r} has no placeholder in it, so '
                    'nothing that was learned takes effect. Known: '
                    f'{", ".join(self.placeholders)}.',
                    stacklevel=2,
                )
            count = self.vocabulary.count(prompt)
            if count > limit:
                warnings.warn(
                    f'A prompt of {count} tokens is cut to its first {limit}; '
                    'a placeholder behind them takes no effect. The prompt '
                    f'is {prompt!r}.',
                    stacklevel=2,
                )
        return self.encode(prompts)

    def encode_negative(self, texts: list[str]) -> Conditioning:
        """Negative prompts, in which loaded words may occur too.

        Args:
            texts (list[str]): B texts.

        Returns:
            Conditioning: B texts.
        """
        return self.encode(texts)

    def edit_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The first validation prompt, for each element.

        Args:
            data_samples (list[BaseDataElement]): B elements.

        Returns:
            Conditioning: B texts.
        """
        return self.condition(self.val_prompts[:1] * len(data_samples))

    def preview_conditions(self) -> list[tuple[str, Conditioning]]:
        """Nothing beside the validation prompts.

        Returns:
            list[tuple[str, Conditioning]]: None.
        """
        return []

    def fixed_condition(self, sample: BaseDataElement) -> Conditioning:
        """The first sentence of a picture.

        Args:
            sample (BaseDataElement): With ``prompts``.

        Returns:
            Conditioning: One text.
        """
        text = self._prompts_of(sample)[0]
        return self.encode([self._with_image_token(text, sample)])

    def comparisons(self) -> list[tuple[str, Conditioning, Conditioning]]:
        """The validation prompts, with the word and with its initialiser.

        Returns:
            list[tuple[str, Conditioning, Conditioning]]: One per prompt.
        """
        cases = []
        for prompt in self.val_prompts:
            text = self._in_plain_words(prompt)
            plain = self.sd.encode_text([text])
            cases.append((text, self.condition([prompt]), plain))
        return cases

    def example_prompt(self) -> str | None:
        """The first validation prompt."""
        return self.val_prompts[0]

    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The denoising loss, and the pull towards the start values.

        Args:
            inputs (Tensor): (B, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): B elements.

        Returns:
            dict[str, Tensor]: 'loss', and 'loss_reg' where it has a weight.
        """
        losses = super().loss(inputs, data_samples)
        if self.embedding_reg_weight:
            drift = self.embedding.drift()
            losses['loss_reg'] = self.embedding_reg_weight * drift
        return losses

    # ----------------------------------------------------- several concepts
    @property
    def placeholders(self) -> list[str]:
        """The words that prompts may use: the learned and the loaded ones."""
        return [self.placeholder_token, *self._loaded]

    def load_embeddings(
        self,
        paths: Sequence[str | Path],
        rename: dict[str, str] | None = None,
    ) -> list[str]:
        """Adds the words of embedding files of any known format.

        Either all are added or, on an error, none. They are used and not
        trained, and are in no checkpoint of this editor.

        Args:
            paths (Sequence[str or Path]): Files, see :mod:`mmhiper.io`.
            rename (dict[str, str], optional): New placeholders by those in
                the files.

        Returns:
            list[str]: The placeholders that were added.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a file is no embedding, or of another width, or a
                placeholder is taken.
        """
        rename = rename or {}
        added: dict[str, Tensor] = {}
        for path in [paths] if isinstance(paths, str | Path) else paths:
            tokens = read_token_file(path)
            self._check_widths(tokens, path)
            for name in tokens.placeholders:
                placeholder = rename.get(name, name)
                if placeholder in added or placeholder in self.placeholders:
                    raise UserError(
                        f'The placeholder {placeholder!r} of {str(path)!r} is '
                        'taken. Give it another one by '
                        f"`rename={{{name!r}: '<new-name>'}}`."
                    )
                added[placeholder] = tokens.rows_of(name)
        vocabularies = [each.copy() for each in self.vocabularies]
        for placeholder, rows in added.items():
            for vocabulary in vocabularies:
                vocabulary.add(placeholder, len(rows))
        self.vocabularies = vocabularies
        self._loaded.update(added)
        return list(added)

    def _check_widths(self, tokens: TokenFile, path: str | Path) -> None:
        """Refuses rows that were learned for other text encoders."""
        wanted = ' + '.join(map(str, self._widths))
        if tokens.width != wanted:
            raise UserError(
                f'An embedding for {self.sd.backbone!r} must be {wanted} '
                f'wide, but that of {str(path)!r} is {tokens.width} wide: it '
                'belongs to another family (Stable Diffusion 1.x: 768, 2.x: '
                '1024, XL: 768 + 1280).'
            )

    @property
    def _widths(self) -> list[int]:
        """How wide the rows of each text encoder are."""
        return [table.shape[1] for table in self.sd.token_tables]

    def to_diffusers(self) -> Any:
        """A plain pipeline with the learned word and the loaded ones.

        Returns:
            StableDiffusionPipeline: Or that of XL, with text encoders and
            tokenizers of its own.
        """
        learned = {self.placeholder_token: self.embedding.active_rows}
        return make_pipeline(self.sd, {**learned, **self._loaded})

    # ---------------------------------------------------------- checkpoints
    def learned_state(self) -> dict[str, Tensor]:
        """The placeholder's rows, named as the field names them.

        So an export is a file that others read as it is: with one text
        encoder ``load_textual_inversion`` of diffusers, whose name is the
        placeholder itself; with the two of Stable Diffusion XL the tools that
        know ``clip_l`` and ``clip_g``.

        Returns:
            dict[str, Tensor]: (k, D) per text encoder, on the CPU.
        """
        rows = self.embedding.active_rows.detach().cpu()
        parts = [each.clone() for each in rows.split(self._widths, dim=1)]
        return dict(zip(self._export_names, parts, strict=True))

    @property
    def _export_names(self) -> tuple[str, ...]:
        """Names of the tensors of an export."""
        return XL_NAMES if self.sd.is_xl else (self.placeholder_token,)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Takes an export too, whose tensors have names of their own."""
        names = [prefix + name for name in self._export_names]
        if all(name in state_dict for name in names):
            exported = torch.cat([state_dict.pop(name) for name in names], 1)
            rows = self.embedding.initial.cpu().clone()
            if exported.shape[1:] == rows.shape[1:]:
                # fewer, where later ones were never in use
                rows = torch.cat([exported, rows[len(exported) :]])
            else:
                rows = exported
            state = self.embedding.state_dict(prefix=f'{prefix}embedding.')
            state[f'{prefix}embedding.rows'] = rows
            state[f'{prefix}embedding.num_active'] = torch.tensor(
                len(exported)
            )
            state_dict.update(state)
        super()._load_from_state_dict(state_dict, prefix, *args)
