"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor
from typing_extensions import override

from mmhiper.models.backbones.base import Backbone
from mmhiper.models.backbones.noise import Flow
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.guidance import OF_STABLE_DIFFUSION_3
from mmhiper.models.layered_text import in_a_row
from mmhiper.models.loading import (
    SCHEDULER,
    PartKind,
    check_vocabulary,
    loading,
)
from mmhiper.models.text_encoders import JointTextEncoders
from mmhiper.models.vocabulary import PlainVocabulary, Vocabulary
from mmhiper.utils.errors import UserError

TAILS = ('clip', 't5', 'both')
T5_POSITIONS = 256  # as in the pipeline of diffusers
_T5_MULTIPLE = 128  # what its table is padded to
_CLIP = 'transformers.CLIPTextModelWithProjection'


class StableDiffusion3(Backbone):
    """Stable Diffusion 3 and 3.5 (arXiv 2403.03206).

    A transformer in which picture and text attend to one another, three text
    encoders, latents of 16 channels with a shift, and flow matching. Where a
    config says U-Net, its transformer is meant. Its attention is not
    controlled.

    Args:
        pretrained: See :class:`Backbone`; a folder or hub id. It may lack the
            third text encoder and its tokenizer.
        without_cuda: Likewise.
        tail: Which part of the text has the last positions, those that HiPer
            learns: 'clip', 't5', or 'both' by turns, the last of all of T5.
            The transformer does not tell the order of a text, so its positions
            come out in that order, and mean the same.
        t5_words: Whether new words have rows in T5's table too. If not, T5
            reads a placeholder as it is spelled.
        **options: See :class:`Backbone`.

    Note:
        Turbo models look like those they were made of: ask for guidance 1.
    """

    title = 'Stable Diffusion 3 or 3.5'
    architecture = 'stable-diffusion-3'
    kinds = dict(
        unet=PartKind('transformer', 'diffusers.SD3Transformer2DModel'),
        vae=PartKind('vae', 'diffusers.AutoencoderKL'),
        text_encoder=PartKind('text_encoder', _CLIP),
        tokenizer=PartKind('tokenizer', 'transformers.CLIPTokenizer'),
        text_encoder_2=PartKind('text_encoder_2', _CLIP),
        tokenizer_2=PartKind('tokenizer_2', 'transformers.CLIPTokenizer'),
        text_encoder_3=PartKind(
            'text_encoder_3', 'transformers.T5EncoderModel', optional=True
        ),
        tokenizer_3=PartKind(
            'tokenizer_3', 'transformers.T5TokenizerFast', optional=True
        ),
    )
    usual_guidance = OF_STABLE_DIFFUSION_3
    process: Flow

    def __init__(
        self,
        pretrained: str,
        without_cuda: str | None = None,
        tail: str = 'clip',
        t5_words: bool = False,
        **options: Any,
    ) -> None:
        if tail not in TAILS:
            raise UserError(
                f'`tail` must be one of {TAILS}, but got {tail!r}.'
            )
        if 'tokenizer_3' not in self._source.folders and (
            t5_words or tail != 'clip'
        ):
            raise UserError(
                f'{self._source.name!r} has no T5 (text_encoder_3): leave out '
                '`t5_words` and `tail`.'
            )
        self.tail, self.t5_words = tail, t5_words
        super().__init__(pretrained, without_cuda, **options)

    @override
    def make_process(
        self, config: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> Flow:
        with loading(self._source.path, SCHEDULER):
            return Flow(config, changes)

    @override
    def read_vocabulary(self, tokenizer: Any, model: Any) -> Vocabulary:
        """With T5's positions, and its table, which is padded."""
        if tokenizer not in self.tokenizers[2:]:
            return super().read_vocabulary(tokenizer, model)
        check_vocabulary(self.backbone, tokenizer, model, _T5_MULTIPLE)
        kind = Vocabulary if self.t5_words else PlainVocabulary
        return kind(tokenizer, T5_POSITIONS, model.config.vocab_size)

    @override
    def join(self, models: Sequence[Any]) -> JointTextEncoders:
        """With the tail in its place."""
        clip = list(range(self.tokenizer.model_max_length))
        t5 = list(range(len(clip), len(clip) + T5_POSITIONS))
        order = [*clip, *t5] if self.tail == 't5' else [*t5, *clip]
        if self.tail == 'both':
            pairs = zip(clip, t5[-len(clip) :], strict=True)
            order = [*t5[: -len(clip)], *chain.from_iterable(pairs)]
        width = self.unet.config.joint_attention_dim
        return JointTextEncoders(
            models, (T5_POSITIONS, width), order, self.t5_words
        )

    @property
    @override
    def num_positions(self) -> int:
        """Positions that may be free, those of the part with the tail."""
        clip = self.vocabulary.num_positions
        return dict(clip=clip, t5=T5_POSITIONS, both=2 * clip)[self.tail]

    @override
    def free_in(self, free: int) -> list[int]:
        """In the part, or the parts, with the tail alone."""
        in_t5 = dict(clip=0, t5=free, both=-(-free // 2))[self.tail]
        return [free - in_t5, free - in_t5, in_t5][: len(self.vocabularies)]

    @override
    def predict(
        self, latents: Tensor, times: Tensor, conditioning: Conditioning
    ) -> Tensor:
        assert conditioning.pooled is not None
        now = conditioning.at(times, self.process.num_timesteps)
        tokens = in_a_row(now.tokens) if now.varies else now.tokens
        times = times.to(latents.device, non_blocking=True)
        return self.unet(
            hidden_states=latents.to(self.dtype),
            timestep=times.expand(len(latents)),
            encoder_hidden_states=tokens.to(self.dtype),
            pooled_projections=conditioning.pooled.to(self.dtype),
            return_dict=False,
        )[0].float()

    @override
    def pipeline(
        self, tokenizers: Sequence[Any], models: Sequence[Any]
    ) -> Any:
        import diffusers

        parts: dict[str, Any] = dict(text_encoder_3=None, tokenizer_3=None)
        for number, model in enumerate(models):
            suffix = f'_{number + 1}' if number else ''
            parts[f'tokenizer{suffix}'] = tokenizers[number]
            parts[f'text_encoder{suffix}'] = model
        return diffusers.StableDiffusion3Pipeline(
            transformer=self.unet,
            vae=self.vae,
            scheduler=self.process.make_sampler(),
            **parts,
        )
