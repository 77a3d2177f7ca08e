"""Stable Diffusion 1.x, 2.x and XL."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from mmhiper.models.attention import has_split_attention
from mmhiper.models.backbones.base import Backbone
from mmhiper.models.backbones.noise import Diffusion
from mmhiper.models.backbones.single_file import read_stable_diffusion
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.guidance import OF_STABLE_DIFFUSION, OF_XL
from mmhiper.models.layered_text import cross_layers, in_a_row, read_own
from mmhiper.models.loading import MINI_SD, ModelSource, PartKind
from mmhiper.registry import MODELS


@MODELS.register_module()
class StableDiffusion(Backbone):
    """Stable Diffusion 1.x and 2.x, and the name of all families in configs.

    A config names a model and never its family: made from a model of another
    one, this is a backbone of that family.

    Args:
        pretrained: See :class:`Backbone`, as for the others.

    Note:
        The scheduler is a ``DDIMScheduler`` with the config of the model's
        own folder; one that is named by ``type`` takes its place in sampling,
        while the noise of training stays as it is. ``steps_offset`` in
        particular stays what the folder says: official folders say 1 and the
        diffusers pipelines run with it, where a bare ``DDIMScheduler`` would
        have 0 and visit other timesteps.
    """

    title = 'Stable Diffusion 1.x or 2.x'
    kinds = dict(
        unet=PartKind('unet', 'diffusers.UNet2DConditionModel'),
        vae=PartKind('vae', 'diffusers.AutoencoderKL'),
        text_encoder=PartKind('text_encoder', 'transformers.CLIPTextModel'),
        tokenizer=PartKind('tokenizer', 'transformers.CLIPTokenizer'),
    )
    usual_guidance = OF_STABLE_DIFFUSION
    reads_weights = True
    process: Diffusion
    _layers_read_own = False

    @override
    def facts(self) -> dict[str, str]:
        facts = super().facts()
        if self.backbone == MINI_SD:
            facts['architecture'] = MINI_SD
        elif not self.architecture:  # 1.x, 2.x, or something smaller
            width = self.token_tables[0].shape[1]
            velocity = facts['prediction_type'] == 'v'
            known = {768: 'v1', 1024: 'v2-768-v' if velocity else 'v2-512'}
            name = known.get(width, width)
            facts['architecture'] = f'stable-diffusion-{name}'
        return facts

    @classmethod
    @override
    def _stands_for(cls, family: type[Backbone]) -> bool:
        return cls is StableDiffusion or super()._stands_for(family)

    @classmethod
    @override
    def fits(cls, source: ModelSource) -> bool:
        """Likewise; a single file that nothing is said of is one, too."""
        unknown = source.single_file and not source.index
        return super().fits(source) or (unknown and cls is StableDiffusion)

    @classmethod
    @override
    def read_single_file(
        cls, source: ModelSource, dtype: torch.dtype
    ) -> dict[str, Any]:
        return read_stable_diffusion(source, cls.kinds, dtype)

    @property
    def scheduler(self) -> Any:
        """The DDIM scheduler, which training and inversion use."""
        return self.process.scheduler

    @property
    @override
    def attention(self) -> Any:
        return self.unet

    @override
    def predict(
        self, latents: Tensor, times: Tensor, conditioning: Conditioning
    ) -> Tensor:
        conditioning = self._as_layers_read(conditioning, times)
        options = self._added(latents, conditioning)
        if conditioning.values is not None:
            # the U-Net's own attention would ignore them
            assert has_split_attention(self.unet)
            values = conditioning.values.to(self.dtype)
            options['cross_attention_kwargs'] = dict(value_states=values)
        return self.unet(
            latents.to(self.dtype),
            times.to(latents.device, non_blocking=True),
            encoder_hidden_states=conditioning.tokens.to(self.dtype),
            return_dict=False,
            **options,
        )[0].float()

    @property
    @override
    def text_layers(self) -> int:
        return len(cross_layers(self.unet))

    def _as_layers_read(
        self, conditioning: Conditioning, times: Tensor
    ) -> Conditioning:
        """What holds at some times, the texts of all layers in a row."""
        usual = self.num_positions
        is_long = conditioning.tokens.shape[-2] > usual
        if conditioning.varies:
            if not self._layers_read_own:
                read_own(self.unet, usual)
                self._layers_read_own = True
            now = conditioning.at(times, self.process.num_timesteps)
        elif is_long and self._layers_read_own:
            now = conditioning
        else:
            return conditioning
        if is_long:  # else it would be cut up as if it were several
            now = now.in_form(1, self.text_layers)
        values = None if now.values is None else in_a_row(now.values)
        return Conditioning(in_a_row(now.tokens), now.pooled, values)

    def _added(
        self, latents: Tensor, conditioning: Conditioning
    ) -> dict[str, Any]:
        """What the U-Net is told besides the text."""
        return {}

    @override
    def pipeline(
        self, tokenizers: Sequence[Any], models: Sequence[Any]
    ) -> Any:
        import diffusers

        return diffusers.StableDiffusionPipeline(
            vae=self.vae,
            unet=self.unet,
            scheduler=self.scheduler,
            tokenizer=tokenizers[0],
            text_encoder=models[0],
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL (arXiv 2307.01952).

    Two text encoders side by side, the pooled text of the second, and the
    sizes of a picture. Attention is not controlled.

    Args:
        pretrained: See :class:`Backbone`, as for the others.
    """

    title = 'Stable Diffusion XL'
    architecture = 'stable-diffusion-xl-v1-base'
    kinds = dict(
        **StableDiffusion.kinds,
        text_encoder_2=PartKind(
            'text_encoder_2', 'transformers.CLIPTextModelWithProjection'
        ),
        tokenizer_2=PartKind('tokenizer_2', 'transformers.CLIPTokenizer'),
    )
    usual_guidance = OF_XL

    @property
    def forces_zeros(self) -> bool:
        """Whether guidance moves away from zeros, not from the empty text."""
        said = self._source.index.get('force_zeros_for_empty_prompt', True)
        return bool(said)

    @property
    @override
    def attention(self) -> Any:
        return None

    @override
    def adapt(self) -> None:
        """Keeps an autoencoder that overflows in half precision out of it."""
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.float()

    @override
    def encode_nothing(self, count: int) -> Conditioning:
        """Zeros, unless the index says that they are the empty text."""
        empty = super().encode_nothing(count)
        return empty.zeros() if self.forces_zeros else empty

    @override
    def _added(
        self, latents: Tensor, conditioning: Conditioning
    ) -> dict[str, Any]:
        assert conditioning.pooled is not None
        added = dict(
            text_embeds=conditioning.pooled.to(self.dtype),
            time_ids=self._time_ids(latents),
        )
        return dict(added_cond_kwargs=added)

    def _time_ids(self, latents: Tensor) -> Tensor:
        """Original size, corner of the crop and target size, (B, 6) pixels."""
        # A picture that was never made smaller or cut, in training as in
        # sampling: so what is learned of one is met again.
        size = [side * self.vae_factor for side in latents.shape[-2:]]
        numbers = torch.tensor([*size, 0, 0, *size], dtype=self.dtype)
        numbers = numbers.to(latents.device, non_blocking=True)
        return numbers.expand(len(latents), -1)

    @override
    def pipeline(
        self, tokenizers: Sequence[Any], models: Sequence[Any]
    ) -> Any:
        import diffusers

        vae = self.vae
        if vae.dtype != self.dtype:
            # it decodes in full precision here; the pipeline sees to it itself
            vae = copy.deepcopy(vae).to(self.dtype)
        return diffusers.StableDiffusionXLPipeline(
            vae=vae,
            unet=self.unet,
            scheduler=self.scheduler,
            tokenizer=tokenizers[0],
            tokenizer_2=tokenizers[1],
            text_encoder=models[0],
            text_encoder_2=models[1],
            force_zeros_for_empty_prompt=self.forces_zeros,
            add_watermarker=False,
        )
