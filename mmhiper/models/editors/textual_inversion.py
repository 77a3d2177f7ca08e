"""Textual Inversion: new words for what a few pictures show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.structures import BaseDataElement
from torch import Tensor
from typing_extensions import override

from mmhiper.io.token_file import quoted
from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.denoising import RANDOM
from mmhiper.models.editors.base import Preprocessing
from mmhiper.models.editors.word_editor import WordEditor, check_range
from mmhiper.models.foreign_words import warn_unknown
from mmhiper.registry import MODELS
from mmhiper.utils.arguments import OfThisRun
from mmhiper.utils.errors import UserError, shortened
from mmhiper.utils.randomness import generator_of, run_state


@MODELS.register_module()
class TextualInversion(WordEditor):
    """Words learned from 3 to 5 pictures each (arXiv 2208.01618).

    A placeholder becomes new tokens; their rows of the token table, and
    nothing else, are optimised so that the frozen model denoises the pictures
    when it reads sentences with the placeholder in them (eq. 2). Several
    placeholders are learned side by side, also from pictures whose sentences
    have several of them.

    Args:
        sd: The frozen model or its config.
        placeholder_token: The new word, such as ``<cat-toy>``, or W words.
        initialize_token: A word of one token whose row is the start value.
            None starts from random numbers of the table's own mean and
            standard deviation. One for all words, or W.
        num_vectors_per_token: New tokens n behind the placeholder; one number
            for all words, or W.
        val_prompts: Prompts of previews and tests, each with a placeholder in
            it.
        progressive_interval: Begin with one vector and take one more every so
            many iterations (sec. 5.2; the paper: 2000). None uses all from the
            start.
        per_image_tokens: The number of training pictures, where each has a
            token of its own in training, for what is particular to it (sec.
            5.2); 0 for none. It starts at random.
        embedding_reg_weight: Weight of the mean squared distance between the
            vectors and their start values (sec. 5.2).
        data_preprocessor: See :class:`EmbeddingEditor`;
            ``dict(random_flip=True)`` mirrors pictures half the time.
        hold_outside: See :class:`EmbeddingEditor`, as for ``noise_offset``,
            ``min_snr_gamma``, ``debiased``, ``draws_per_step``,
            ``draw_times`` and ``time_range``.
        per_image_mixing: With ``per_image_tokens`` how often, in [0, 1],
            "with" and the picture's own token end its sentence.
        embedding: A file of words to start from, of any known format. Words
            that it does not have start as ever. The regulariser pulls to the
            initialiser all the same.
        directional: Learn the direction of the vectors alone, as Directional
            Textual Inversion does (arXiv 2512.13672): their norm stays the
            median of the vocabulary's. Off, as in the original, where it grows
            to several times that.

    Raises:
        FileNotFoundError: If there is no file ``embedding``.
        ValueError: If a placeholder is no new word, the initialiser is
            several tokens, a number is out of range, a validation prompt
            lacks a placeholder, or the file has none of the words.

    Note:
        Stable Diffusion XL has two text encoders with a table each. A row is
        then the rows of both side by side, as its conditioning is the outputs
        of both side by side.

    Note:
        What several words learn does not depend on one another: the loss is
        the sum over concepts (pictures whose sentences have the same words)
        of each one's mean, and a step leaves words alone that no sentence of
        it has, by the regulariser too. In the official code momentum moves
        them, and each concept has its share of a mean over the batch.

    Note:
        The official code penalises the mean of the vectors' whole Gram matrix
        of differences, here it is the mean of its diagonal. For one vector
        they are the same. A picture's own token is one vector here; there it
        is as many as the placeholder. Random starts there are uniform in
        [0, 1), far outside of CLIP's table.

    Note:
        Directional Textual Inversion walks the sphere by Riemannian descent
        and has a prior on the direction besides. Here any optimizer moves a
        vector of any length, which is brought to its norm wherever it is
        used, so its gradients are tangential; for a prior there is
        ``embedding_reg_weight``.
    """

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        placeholder_token: str | list[str],
        initialize_token: str | list[str | None] | None = None,
        num_vectors_per_token: int | list[int] = 1,
        val_prompts: str | list[str] | None = None,
        progressive_interval: int | None = None,
        per_image_tokens: int = 0,
        embedding_reg_weight: float = 0.0,
        data_preprocessor: Preprocessing = None,
        hold_outside: float = 0.0,
        noise_offset: float = 0.0,
        min_snr_gamma: float | None = None,
        debiased: bool = False,
        per_image_mixing: float = 0.25,
        embedding: Annotated[str | None, OfThisRun()] = None,
        directional: bool = False,
        draws_per_step: int = 1,
        draw_times: str = RANDOM,
        time_range: list[float] | None = None,
    ) -> None:
        super().__init__(
            sd,
            placeholder_token=placeholder_token,
            initialize_token=initialize_token,
            num_vectors_per_token=num_vectors_per_token,
            per_image_tokens=per_image_tokens,
            embedding=embedding,
            directional=directional,
            data_preprocessor=data_preprocessor,
            val_prompts=val_prompts,
            hold_outside=hold_outside,
            noise_offset=noise_offset,
            min_snr_gamma=min_snr_gamma,
            debiased=debiased,
            draws_per_step=draws_per_step,
            draw_times=draw_times,
            time_range=time_range,
        )
        if progressive_interval is not None:
            check_range('progressive_interval', progressive_interval, 1)
        check_range('per_image_mixing', per_image_mixing, 0, 1)
        check_range('embedding_reg_weight', embedding_reg_weight, 0)
        self.progressive_interval = progressive_interval
        self.per_image_mixing = per_image_mixing
        self.embedding_reg_weight = embedding_reg_weight

    # --------------------------------------------------------- conditioning
    @override
    def train_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """A sentence of each picture, with the new rows in it (eq. 2).

        Which of its sentences a picture gets, and whether its own token ends
        it, depends on (seed, picture, iteration) alone, as noise and timestep
        do.
        """
        return self.encode(
            [
                self._with_image_token(self._sentence_of(sample), sample)
                for sample in data_samples
            ]
        )

    @override
    def plain_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The same sentences with the initialiser in them."""
        return self.sd.encode_text(
            [
                self._in_plain_words(self._sentence_of(sample))
                for sample in data_samples
            ]
        )

    def _in_plain_words(self, text: str) -> str:
        """A text with the initialisers in the place of the new words."""
        plain = {w: each or 'thing' for w, each in self._initializers.items()}
        return self.vocabulary.replace(text, plain)

    def _sentence_of(self, sample: BaseDataElement) -> str:
        """The sentence of a picture at this iteration of the run."""
        seed, iteration = run_state()
        prompts = self._prompts_of(sample)
        generator = generator_of(seed, sample.image_key, iteration, 'prompt')
        pick = torch.randint(len(prompts), (1,), generator=generator)
        return prompts[int(pick)]

    def _prompts_of(self, sample: BaseDataElement) -> Sequence[str]:
        """The sentences of a picture for this backbone, checked."""
        prompts = sample.get('prompts')
        if isinstance(prompts, Mapping):
            name = Path(self.sd.backbone).name
            prompts = prompts.get(name, prompts['default'])
        if not prompts or not self.words.learned_in(prompts[0]):
            raise UserError(
                'A data element needs `prompts`, sentences with the '
                f'placeholder {quoted(self.words.learned)}, but has '
                f'{prompts and prompts[0]!r}. TextualInversionDataset makes '
                'them: give it the same placeholder as the model.'
            )
        checked: Sequence[str] = prompts
        return checked

    @override
    def check_learnable(self, data_samples: list[BaseDataElement]) -> None:
        """Refuses sentences in which a word, or some of it, is not read."""
        found: set[str] = set()
        for sample in data_samples:
            for text in self._prompts_of(sample):
                words = self.words.learned_in(text)
                if not words:
                    raise UserError(
                        f'The template {shortened(text)} has none of the '
                        f'words {quoted(self.words.learned)}, so a step with '
                        'it would learn nothing. Give dataset and model the '
                        'same placeholder.'
                    )
                found.update(words)
                self._check_read('template', self._longest(text, sample))
                warn_unknown([text], self.vocabulary)
        missing = [word for word in self.words.learned if word not in found]
        if missing:
            raise UserError(
                f'The word {quoted(missing)} is in no template of the '
                'pictures, so nothing of it would be learned: they have '
                f'{quoted(sorted(found))}. Give dataset and model the same '
                'placeholders.'
            )
        for prompt in self.val_prompts:
            self._check_read('validation prompt', prompt)
        warn_unknown(self.val_prompts, self.vocabulary)

    @override
    def check_length(self, iterations: int) -> None:
        """Refuses vectors that would not come into use."""
        if self.progressive_interval is None:
            return
        used = 1 + (iterations - 1) // self.progressive_interval
        most = max(len(self.vocabulary.rows_of(w)) for w in self.words.learned)
        if used < most:
            raise UserError(
                f'With `progressive_interval` {self.progressive_interval} '
                f'{used} of {most} vectors come into use in {iterations} '
                'iterations (`train_cfg.max_iters`); the others would learn '
                'nothing. Train longer than '
                f'{(most - 1) * self.progressive_interval}, or take fewer.'
            )

    def _longest(self, text: str, sample: BaseDataElement) -> str:
        """A sentence with all that training may put behind it."""
        tokens = self.words.of_images
        if not tokens or not self.per_image_mixing:
            return text
        return f'{text} with {tokens[self._image_of(sample)]}'

    def _check_read(self, what: str, text: str) -> None:
        """Refuses a text that ends before all of a word in it is read."""
        lost = self.vocabulary.cut_off(text)
        if lost:
            own = quoted(lost)
            limit = self.sd.room()
            raise UserError(
                f'The {what} {shortened(text)} has '
                f'{self.vocabulary.count(text)} tokens, of which the model '
                f'reads the first {limit}: {own}, of '
                f'{sum(len(self.vocabulary.rows_of(w)) for w in lost)} '
                'vector(s), is not all among them, so not all of it is '
                'learned. Shorten the text, or `num_vectors_per_token`.'
            )

    def _image_of(self, sample: BaseDataElement) -> int:
        """Which of the tokens of pictures a picture has."""
        count = len(self.words.of_images)
        image: int = sample.get('image_index', 0)
        if image >= count:
            raise UserError(
                '`per_image_tokens` must be the number of training pictures, '
                f'but is {count}, and there is a picture number {image + 1}.'
            )
        return image

    @override
    def subject_of(self, sample: BaseDataElement) -> str:
        """The words of a picture."""
        return ', '.join(self.words.learned_in(self._prompts_of(sample)[0]))

    def _with_image_token(self, text: str, sample: BaseDataElement) -> str:
        """Ends a text with its picture's own token, now and then."""
        tokens = self.words.of_images
        if not tokens:
            return text
        image = self._image_of(sample)
        seed, iteration = run_state()
        generator = generator_of(seed, sample.image_key, iteration, 'mixing')
        if float(torch.rand(1, generator=generator)) >= self.per_image_mixing:
            return text
        return f'{text} with {tokens[image]}'

    @override
    def edit_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The first validation prompt, for each element."""
        return self.condition(self.val_prompts[:1] * len(data_samples))

    @override
    def preview_conditions(self) -> list[tuple[str, Conditioning]]:
        """Nothing beside the validation prompts."""
        return []

    @override
    def fixed_condition(self, sample: BaseDataElement) -> Conditioning:
        """The first sentence of a picture."""
        return self.encode([self._prompts_of(sample)[0]])

    @override
    def comparisons(self) -> list[tuple[str, Conditioning, Conditioning]]:
        """The validation prompts, with the word and with its initialiser."""
        cases = []
        for prompt in self.val_prompts:
            text = self._in_plain_words(prompt)
            plain = self.sd.encode_text([text])
            cases.append((text, self.condition([prompt]), plain))
        return cases

    @override
    def is_about(self, number: int, sample: BaseDataElement) -> bool:
        """Whether a validation prompt has a word of a picture in it.

        Returns:
            True as well for a prompt with loaded words alone.
        """
        words = self.words.learned_in(self.val_prompts[number])
        shown = self.words.learned_in(self._prompts_of(sample)[0])
        return not words or not set(words).isdisjoint(shown)

    @override
    def example_prompt(self) -> str | None:
        """The first validation prompt."""
        return self.val_prompts[0]

    @override
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The denoising loss, and the pull towards the start values.

        Progressive vectors whose turn has come are in use from here on.

        Returns:
            'loss', and 'loss_reg' where it has a weight.
        """
        if self.progressive_interval:
            _, iteration = run_state()
            self.embedding.activate(1 + iteration // self.progressive_interval)
        if len(self.words.learned) == 1:
            losses = super().loss(inputs, data_samples)
            words = set(self.words.learned)
        else:
            each = self.image_losses(inputs, data_samples)
            weights, words = self._weigh_concepts(data_samples)
            losses = dict(loss=(weights.to(each.device) * each).sum())
        if self.embedding_reg_weight:
            drifts = [self.embedding.drift(word) for word in sorted(words)]
            total = torch.stack(drifts).sum()
            losses['loss_reg'] = self.embedding_reg_weight * total
        return losses

    def _weigh_concepts(
        self, data_samples: list[BaseDataElement]
    ) -> tuple[Tensor, set[str]]:
        """What each picture counts, and which words are in this step."""
        # Pictures of a concept share one mean over all processes. Distributed
        # training takes the mean over these, which the world size undoes.
        # (B,), and the words in the sentences of all processes
        own = [
            self.words.learned_in(self._sentence_of(sample))
            for sample in data_samples
        ]
        counts = Counter(chain.from_iterable(all_gather_object(own)))
        weights = [get_world_size() / counts[concept] for concept in own]
        return torch.tensor(weights), set(chain.from_iterable(counts))

    @property
    @override
    def may_skip_parameters(self) -> bool:
        """Whether there are several words, or tokens of pictures."""
        return len(self.words.learned) > 1 or self.per_image_tokens > 0
