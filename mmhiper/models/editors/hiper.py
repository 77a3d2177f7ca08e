"""HiPer: a picture's identity in the last N positions of its text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.structures import BaseDataElement
from torch import Tensor
from typing_extensions import override

from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.denoising import RANDOM
from mmhiper.models.editors.base import Preprocessing
from mmhiper.models.editors.denoising import EmbeddingEditor
from mmhiper.models.editors.earlier_tails import mean_tail
from mmhiper.models.editors.texts import check_differs, check_texts
from mmhiper.models.embeddings import TailEmbedding
from mmhiper.models.foreign_words import warn_unknown
from mmhiper.models.weighted_text import WeightedText
from mmhiper.registry import MODELS
from mmhiper.utils.arguments import OfThisRun, is_number
from mmhiper.utils.errors import UserError
from mmhiper.utils.randomness import generator_of, run_state


@MODELS.register_module()
class HiPer(EmbeddingEditor):
    """Highly personalized text embedding (arXiv 2303.08767).

    The encoded source text is split by position into a content part, its
    first M - N positions, and a personalised part, its last N (sec. 3.2).
    Only the personalised part is optimised, to denoise the source image
    (eq. 4); an edit is the content part of another text with the learned
    part, scaled by ``strength``, behind it (eq. 5).

    Args:
        sd: The frozen model or its config.
        source_text: What the source image shows; a list of K texts for K
            images.
        target_text: The edit that previews show; one for all images or one
            each.
        n_hiper: Learned positions N, in [1, M - 1]. The paper takes 5; its
            authors advise 10 for people.
        strength: Default factor on the learned part in an edit. Several are
            taken one after another in as many stages of the noise, the
            noisiest first: what is weak there leaves the place and the pose to
            the text. The paper has one, 0.8.
        data_preprocessor: See :class:`EmbeddingEditor`.
        val_prompts: More edits that previews show, of the first image.
        hold_outside: See :class:`EmbeddingEditor`, as for ``noise_offset``,
            ``min_snr_gamma``, ``debiased``, ``draws_per_step``,
            ``draw_times`` and ``time_range``.
        more_source_texts: Other true sentences about the source image; for K
            images, K lists. Each step takes one of an image's texts, so that
            what some of them say (a place, an object) need not be learned, and
            is free to be changed. The paper has one text.
        tail_dropout: How often, in [0, 1), a learned position is left to the
            plain text in a training step, each by itself: so none relies on
            all the others. The paper has 0.
        embedding: Files of what was learned of other images, with this N on
            this backbone; the start is the mean of all that is in them. The
            paper starts from the text's own last N.

    Raises:
        FileNotFoundError: If there is no file ``embedding``.
        ValueError: If a text is empty, the numbers of texts differ,
            ``n_hiper`` or ``tail_dropout`` is out of range, or a file
            ``embedding`` is of something else.

    Note:
        One circulating summary of the method has it subtract a mean text
        embedding of many images. Neither the paper nor its code does: the
        decomposition is by position, the recombination a concatenation.

    Note:
        The pooled text that Stable Diffusion XL wants besides is that of the
        text that is drawn, in training as in an edit. It stays plain: what is
        learned is in the last positions alone.

    Note:
        K images learn K independent embeddings: the loss is the *sum* over
        images of each one's mean, so that an image's gradient is what it would
        be alone. Give each batch (or the batches of all processes together)
        all K images; Adam's momentum would move those that are left out. More
        images than a step takes: :mod:`mmhiper.many`.
    """

    embedding: TailEmbedding
    content: Tensor
    pooled: Tensor | None

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        source_text: str | list[str],
        target_text: str | list[str] | None = None,
        n_hiper: int = 5,
        strength: float | list[float] = 0.8,
        data_preprocessor: Preprocessing = None,
        val_prompts: str | list[str] | None = None,
        hold_outside: float = 0.0,
        noise_offset: float = 0.0,
        min_snr_gamma: float | None = None,
        debiased: bool = False,
        more_source_texts: list[str] | list[list[str]] | None = None,
        tail_dropout: float = 0.0,
        draws_per_step: int = 1,
        draw_times: str = RANDOM,
        time_range: list[float] | None = None,
        embedding: Annotated[str | list[str] | None, OfThisRun()] = None,
    ) -> None:
        super().__init__(
            sd,
            data_preprocessor,
            val_prompts,
            hold_outside=hold_outside,
            noise_offset=noise_offset,
            min_snr_gamma=min_snr_gamma,
            debiased=debiased,
            draws_per_step=draws_per_step,
            draw_times=draw_times,
            time_range=time_range,
        )
        most = self.sd.num_positions - 1
        if not 1 <= n_hiper <= most:
            raise UserError(
                f'`n_hiper` must be in [1, {most}], but got {n_hiper}.'
            )
        sources = (
            [source_text] if isinstance(source_text, str) else source_text
        )
        check_texts('source_text', sources)
        targets = target_text
        if isinstance(target_text, str):
            targets = [target_text] * len(sources)
        if targets is not None:
            check_texts('target_text', targets)
            if len(targets) != len(sources):
                raise UserError(
                    '`target_text` must be one text or one for each of '
                    f'{len(sources)} source texts, but got {len(targets)}.'
                )
        if not 0 <= tail_dropout < 1:
            raise UserError(
                f'`tail_dropout` must be in [0, 1), but got {tail_dropout}.'
            )
        self.source_text = list(sources)
        self.more_source_texts = _per_image(more_source_texts, len(sources))
        self.target_text = None if targets is None else list(targets)
        self.n_hiper = n_hiper
        self.strength = strength
        _factors(strength)
        self.tail_dropout = tail_dropout
        # those of an image one after another, then those of the next
        texts = [
            [text, *more]
            for text, more in zip(
                self.source_text, self.more_source_texts, strict=True
            )
        ]
        self._num_texts = [len(some) for some in texts]
        source = self.encode_content([text for some in texts for text in some])
        self._first = [sum(self._num_texts[:k]) for k in range(len(texts))]
        initial = source.tokens[self._first, -n_hiper:]  # (K, N, D)
        if embedding is not None:
            files = [embedding] if isinstance(embedding, str) else embedding
            mean = mean_tail(files, self._record(), initial)
            initial = mean.expand_as(initial)
        self.embedding = TailEmbedding(initial)
        # encoded once; not in checkpoints, the config makes it again
        self.register_buffer('content', source.tokens, persistent=False)
        self.register_buffer('pooled', source.pooled, persistent=False)

    @property
    def num_images(self) -> int:
        """The number of source images K."""
        return len(self.source_text)

    @property
    def content_tokens(self) -> int:
        """The tokens of a text that fit into the content part."""
        return self.sd.room(self.n_hiper)

    @override
    def check_learnable(self, data_samples: list[BaseDataElement]) -> None:
        """Refuses texts without a picture, and edits that change nothing."""
        if not any(_factors(self.strength)):
            raise UserError(
                '`strength` must not be 0: the edits would have nothing of '
                'what is learned in them. The papers take 0.8.'
            )
        indices = set(self.image_indices(data_samples).tolist())
        if len(indices) < self.num_images:
            raise UserError(
                f'`source_text` has {self.num_images} texts, one for each '
                f'picture, but the dataset has {len(indices)} picture(s): '
                'the others would learn nothing. Name as many pictures '
                '(`img`) as texts.'
            )
        targets = self.target_text or []
        warn_unknown(
            [*self.source_text, *targets, *self.val_prompts], self.vocabulary
        )
        for source, target in zip(self.source_text, targets, strict=False):
            check_differs(self.sd, source, target, self.content_tokens)

    @override
    def subject_of(self, sample: BaseDataElement) -> str:
        """The text of a picture."""
        return self.source_text[int(self.image_indices([sample]))]

    def learned_of(self, image: int) -> dict[str, Tensor]:
        """What was learned of one of the K source images.

        Args:
            image: Which.

        Returns:
            The :meth:`learned_state` of an editor of that image alone.
        """
        return {
            name: tensor[image : image + 1].clone()
            for name, tensor in self.learned_state().items()
        }

    def encode_content(self, texts: list[str]) -> Conditioning:
        """Encodes texts, cut where they would reach the learned positions.

        Args:
            texts: B texts.

        Returns:
            Tokens (B, M, D).
        """
        limit = self.content_tokens
        for text in texts:
            tokens = self.sd.count_tokens(text)
            if tokens > limit:
                warnings.warn(
                    f'A text of {tokens} tokens is cut to its first {limit}: '
                    f'the last {self.n_hiper} positions belong to the '
                    f'learned embedding. The text is {text!r}.',
                    stacklevel=2,
                )
        return self.sd.encode_text(texts, free=self.n_hiper)

    @override
    def train_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """[a source text, learned part], with no scale (eq. 4)."""
        source = self.plain_condition(data_samples)
        images = self._indices_there(data_samples)
        tokens = self.embedding(source.tokens, images)
        if self.tail_dropout:
            plain = self._dropped(data_samples).to(tokens.device)
            tokens = torch.where(plain[..., None], source.tokens, tokens)
        return source.with_tokens(tokens)

    @override
    def plain_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """A plain source text of each element, that of this step."""
        return self._sources(
            [
                self._first[image]
                + _draw_below(self._num_texts[image], sample)
                for image, sample in zip(
                    self.image_indices(data_samples).tolist(),
                    data_samples,
                    strict=True,
                )
            ]
        )

    @override
    def fixed_condition(self, sample: BaseDataElement) -> Conditioning:
        """[the first source text, the whole learned part]."""
        (image,) = self.image_indices([sample]).tolist()
        source = self._sources([self._first[image]])
        images = self._indices_there([sample])
        return source.with_tokens(self.embedding(source.tokens, images))

    def _dropped(self, data_samples: list[BaseDataElement]) -> Tensor:
        """Which positions of each element are left plain, (B, M)."""
        chance = torch.ones(len(data_samples), self.content.shape[1])
        for row, sample in zip(chance, data_samples, strict=True):
            row[-self.n_hiper :] = torch.rand(
                self.n_hiper, generator=_generator(sample, 'dropout')
            )
        return chance < self.tail_dropout

    def _sources(self, rows: list[int]) -> Conditioning:
        """Encoded source texts by their number among all."""
        index = torch.tensor(rows).to(self.content.device, non_blocking=True)
        return Conditioning(self.content, self.pooled)[index]

    def _indices_there(self, data_samples: list[BaseDataElement]) -> Tensor:
        """The image indices, (B,), on the device of the texts."""
        images = self.image_indices(data_samples)
        return images.to(self.content.device, non_blocking=True)

    @override
    def condition(
        self,
        prompts: list[str],
        *,
        strength: float | Sequence[float] | None = None,
        image: int = 0,
        index: int | None = None,
    ) -> Conditioning:
        """[prompt, strength * learned part] (eq. 5).

        Args:
            prompts: B prompts.
            strength: Factor on the learned part, or one for each stage of the
                noise; 1 with the source text reconstructs, 0.8 (the default)
                edits.
            image: Which of the K source images.
            index: The same, where ``image`` of :meth:`infer` is a picture to
                begin with.

        Returns:
            B texts.

        Raises:
            ValueError: If there is no such image.
        """
        text = self.encode_content(prompts)
        return self._with_tail(text, strength, image, index)

    @override
    def condition_weighted(
        self, prompts: list[str], negatives: list[str] | None, **options: Any
    ) -> tuple[Conditioning, Conditioning]:
        """Weights are those of the text; the learned part has its strength.

        It takes the last N positions of a prompt's last chunk, or of an empty
        one behind it where the text would reach them.
        """
        reader = WeightedText(self.sd)
        texts = reader.read(prompts, free=self.n_hiper)
        learned = [self._with_tail(text, **options) for text in texts]
        return reader.pair(learned, negatives)

    def _with_tail(
        self,
        text: Conditioning,
        strength: float | Sequence[float] | None = None,
        image: int = 0,
        index: int | None = None,
    ) -> Conditioning:
        """Encoded texts with a learned part; see :meth:`condition`."""
        name = 'image' if index is None else 'index'
        image = image if index is None else index
        if not 0 <= image < self.num_images:
            raise UserError(
                f'`{name}` must be in [0, {self.num_images - 1}], but got '
                f'{image}.'
            )
        factors = _factors(self.strength if strength is None else strength)
        images = torch.full((len(text),), image, device=text.tokens.device)
        texts = [
            text.with_tokens(self.embedding(text.tokens, images, factor))
            for factor in factors
        ]
        if len(texts) == 1:
            return texts[0]
        return Conditioning.cat(texts).by_stage(len(texts))

    @override
    def edit_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """[target text, strength * learned part], or the source text's."""
        texts = self.target_text or self.source_text
        images = self.image_indices(data_samples).tolist()
        return Conditioning.cat(
            [self.condition([texts[i]], image=i) for i in images]
        )

    @override
    def preview_conditions(self) -> list[tuple[str, Conditioning]]:
        """Reconstruction, edit, and the plain target text."""
        source = self.source_text[0]
        target = (self.target_text or self.source_text)[0]
        return [
            (
                f'[{source}] + hiper',
                self.condition([source], strength=1.0),
            ),
            (
                f'[{target}] + {_words(self.strength)} hiper',
                self.condition([target]),
            ),
            (f'[{target}]', self.encode_content([target])),
        ]

    @override
    def comparisons(self) -> list[tuple[str, Conditioning, Conditioning]]:
        """The target texts, with the learned part and plain."""
        texts = self.target_text or self.source_text
        return [
            (
                text,
                self.condition([text], image=i),
                self.encode_content([text]),
            )
            for i, text in enumerate(texts)
        ]

    @override
    def is_about(self, number: int, sample: BaseDataElement) -> bool:
        """Whether a target text is that of a source image."""
        return number == int(self.image_indices([sample]))

    @override
    def example_prompt(self) -> str | None:
        """The target text of the first image."""
        return self.target_text[0] if self.target_text else None

    @override
    def image_indices(self, data_samples: list[BaseDataElement]) -> Tensor:
        """Which source image each data element is.

        Raises:
            ValueError: If an index is missing or out of range.
        """
        default = 0 if self.num_images == 1 else -1
        indices = [s.get('image_index', default) for s in data_samples]
        for index in indices:
            if not 0 <= index < self.num_images:
                found = 'none' if index == -1 else index
                raise UserError(
                    f'`image_index` of a data element must be in [0, '
                    f'{self.num_images - 1}] (there are {self.num_images} '
                    f'source texts), but got {found}.'
                )
        return torch.tensor(indices)

    @override
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The sum over source images of each one's mean squared error."""
        losses = self.image_losses(inputs, data_samples)
        images = self.image_indices(data_samples)
        # How often each image occurs in this step, over all processes. Its
        # copies have the same noise, so they share its weight; distributed
        # training averages over processes, which the world size undoes.
        counts = torch.bincount(images, minlength=self.num_images).float()
        counts = counts.to(losses.device, non_blocking=True)
        all_reduce(counts)
        weights = get_world_size() / counts[self._indices_there(data_samples)]
        return dict(loss=(weights * losses).sum())


def _factors(strength: float | Sequence[float]) -> list[float]:
    """One factor, or one for each stage, checked."""
    given: Any = strength
    if not isinstance(strength, list | tuple):
        given = [strength]
    if not given or not all(map(is_number, given)):
        raise UserError(
            '`strength` must be a number, or a list of numbers for as many '
            f'stages of the noise, but got {strength!r}.'
        )
    return [float(factor) for factor in given]


def _words(strength: float | Sequence[float]) -> str:
    """As captions have it: 0.8, or 0.6, 0.8, 1."""
    return ', '.join(f'{factor:g}' for factor in _factors(strength))


def _generator(sample: BaseDataElement, what: str) -> torch.Generator:
    """Of a picture and an iteration, beside that of their noise."""
    seed, iteration = run_state()
    return generator_of(seed, sample.image_key, iteration, what)


def _draw_below(count: int, sample: BaseDataElement) -> int:
    """A number in [0, ``count``), new for each iteration."""
    if count == 1:
        return 0
    generator = _generator(sample, 'text')
    return int(torch.randint(count, (), generator=generator))


def _per_image(
    texts: list[str] | list[list[str]] | None, num_images: int
) -> list[list[str]]:
    """The further texts of each image; a flat list is that of one image."""
    if texts is None:
        return [[] for _ in range(num_images)]
    name = 'more_source_texts'
    flat = isinstance(texts, list) and any(isinstance(t, str) for t in texts)
    if isinstance(texts, str) or (flat and num_images > 1):
        raise UserError(
            f'`{name}` must be a list of texts, or a list of such lists for '
            f'{num_images} source texts, but got {texts!r}.'
        )
    lists: Any = [texts] if flat else texts
    if len(lists) != num_images:
        raise UserError(
            f'`{name}` must be a list of texts for each of {num_images} '
            f'source texts, but got {len(lists)}.'
        )
    for some in lists:
        if some:
            check_texts(name, some)
    return [list(some) for some in lists]
