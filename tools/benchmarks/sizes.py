"""Models of published sizes with random weights, made on the spot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmhiper.models.loading import BUNDLED, MINI_SD

POSITIONS, VOCABULARY = 77, 49408


@dataclass(frozen=True)
class Size:
    """A model of the Stable Diffusion family.

    Attributes:
        unet: Of its U-Net.
        texts: Width, layers and heads of each text encoder.
        levels: Channels of its autoencoder.
    """

    unet: dict[str, Any]
    texts: tuple[tuple[int, int, int], ...]
    levels: tuple[int, ...] = (128, 256, 512, 512)

    @property
    def is_xl(self) -> bool:
        """Whether it has a pooled text and sizes of the picture."""
        return len(self.texts) > 1

    @property
    def side(self) -> int:
        """Of the latents."""
        return int(self.unet['sample_size'])

    @property
    def pixels(self) -> int:
        """Side of a picture."""
        return self.side * 2 ** (len(self.levels) - 1)

    @property
    def width(self) -> int:
        """Of an encoded text."""
        return sum(width for width, *_ in self.texts)


def _xl(
    channels: tuple[int, ...],
    texts: Any,
    levels: tuple[int, ...] = (128, 256, 512, 512),
    **options: Any,
) -> Size:
    """A Stable Diffusion XL, whose U-Net has an entry for sizes."""
    pooled = texts[-1][0]
    unet = dict(
        cross_attention_dim=sum(width for width, *_ in texts),
        block_out_channels=channels,
        down_block_types=('DownBlock2D', *('CrossAttnDownBlock2D',) * 2),
        up_block_types=(*('CrossAttnUpBlock2D',) * 2, 'UpBlock2D'),
        use_linear_projection=True,
        addition_embed_type='text_time',
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + pooled,
        **options,
    )
    return Size(unet, texts, levels)


SIZES = {
    'sd1': Size(
        dict(sample_size=64, cross_attention_dim=768), ((768, 12, 12),)
    ),
    'sdxl': _xl(
        (320, 640, 1280),
        ((768, 12, 12), (1280, 32, 20)),
        sample_size=128,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
    ),
}
# The same kinds of parts, so small that they run anywhere.
TINY = {
    'sd1': Size(
        dict(
            sample_size=16,
            cross_attention_dim=32,
            block_out_channels=(32, 64),
            down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
            up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'),
            layers_per_block=1,
        ),
        ((32, 2, 4),),
        (32, 32, 32, 32),
    ),
    'sdxl': _xl(
        (32, 64, 64),
        ((32, 2, 4), (48, 2, 4)),
        (32, 32, 32, 32),
        sample_size=16,
        attention_head_dim=4,
        layers_per_block=1,
    ),
}


def make_tokenizer() -> Any:
    """The bundled tokenizer with as many tokens as Stable Diffusion 1.x."""
    import transformers

    folder = BUNDLED[MINI_SD] / 'tokenizer'
    vocabulary = json.loads((folder / 'vocab.json').read_text())
    for number in range(len(vocabulary), VOCABULARY):
        vocabulary[f'filler{number}</w>'] = number
    merges = (folder / 'merges.txt').read_text().splitlines()
    return transformers.CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(line.split()) for line in merges if line[0] != '#'],
        model_max_length=POSITIONS,
    )


def _text_encoder(shape: tuple[int, int, int], tokens: Any, last: bool) -> Any:
    """A CLIP text model; the last of several has a projection."""
    import transformers

    width, layers, heads = shape
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    kind = transformers.CLIPTextModel
    if last:
        kind = transformers.CLIPTextModelWithProjection
    return kind(config)


def make_model(folder: Path, size: Size, device: str = 'cpu') -> None:
    """Write a model with random weights, in half precision.

    Args:
        folder: Where to, in the diffusers layout.
        size: Of which size.
        device: Where weights are drawn; a GPU is faster at it.
    """
    import diffusers

    from mmhiper.models.loading import quiet

    tokens = make_tokenizer()
    parts: dict[str, Any] = {}
    levels = size.levels
    with torch.device(device):
        parts['unet'] = diffusers.UNet2DConditionModel(**size.unet)
        parts['vae'] = diffusers.AutoencoderKL(
            block_out_channels=levels,
            down_block_types=('DownEncoderBlock2D',) * len(levels),
            up_block_types=('UpDecoderBlock2D',) * len(levels),
            layers_per_block=2,
            sample_size=size.pixels,
        )
        for number, shape in enumerate(size.texts):
            suffix = f'_{number + 1}' if number else ''
            encoder = _text_encoder(shape, tokens, bool(number))
            parts[f'text_encoder{suffix}'] = encoder
            parts[f'tokenizer{suffix}'] = tokens
    parts['scheduler'] = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule='scaled_linear',
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    if size.is_xl:
        pipeline = diffusers.StableDiffusionXLPipeline(**parts)
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **parts,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    with quiet():
        pipeline.to(torch.float16).save_pretrained(folder)
