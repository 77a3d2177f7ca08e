"""The text-to-image model of latent diffusion, before Stable Diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from typing_extensions import override

from mmhiper.models.backbones.single_file import read_latent_diffusion
from mmhiper.models.backbones.stable_diffusion import StableDiffusion
from mmhiper.models.guidance import OF_LATENT_DIFFUSION
from mmhiper.models.loading import ModelSource, PartKind, check_vocabulary
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.utils.errors import UserError


class LatentDiffusion(StableDiffusion):
    """Latent diffusion for text to image (arXiv 2112.10752, sec. 4.3).

    The model that Textual Inversion was published with. It differs from
    Stable Diffusion by its text encoder, a BERT of its own that was trained
    along, and by its size: pictures of 256 pixels, latents of 32 x 32. So all
    editors work with it.

    Args:
        pretrained: The diffusers folder of such a model, or its hub id; or the
            original ``model.ckpt``, put into a copy of that folder with the
            small files alone, which say how to read it.
        **options: See :class:`Backbone`.

    Note:
        It has no guidance of its own. The default is 10, what Textual
        Inversion draws its pictures with (arXiv 2208.01618, app.).
    """

    title = 'latent diffusion model (text to image)'
    architecture = 'latent-diffusion'
    kinds = dict(
        unet=StableDiffusion.kinds['unet'],
        vae=PartKind('vqvae', 'diffusers.AutoencoderKL'),
        text_encoder=PartKind(
            'bert', 'diffusers.pipelines.latent_diffusion.LDMBertModel'
        ),
        tokenizer=PartKind('tokenizer', 'transformers.BertTokenizer'),
    )
    usual_guidance = OF_LATENT_DIFFUSION
    reads_weights = False

    @classmethod
    @override
    def read_single_file(
        cls, source: ModelSource, dtype: torch.dtype
    ) -> dict[str, Any]:
        return read_latent_diffusion(source, cls.kinds, dtype)

    @override
    def read_vocabulary(self, tokenizer: Any, model: Any) -> Vocabulary:
        """With as many positions as the encoder has, not the tokenizer."""
        check_vocabulary(self.backbone, tokenizer, model)
        return Vocabulary(tokenizer, model.config.max_position_embeddings)

    @override
    def pipeline(
        self, tokenizers: Sequence[Any], models: Sequence[Any]
    ) -> NoReturn:
        """There is none that takes what was learned."""
        raise UserError(
            'The pipeline of diffusers for a latent diffusion model takes '
            'neither encoded texts nor new words. Draw with `editor.infer`.'
        )
