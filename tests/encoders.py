"""Tiny encoders that metrics take, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from mmhiper.evaluation.lpips import NETWORKS

# Widths of the layers that count.
TAPS = dict(
    alex=(64, 192, 384, 256, 256),
    vgg=(64, 128, 256, 512, 512),
    squeeze=(64, 128, 256, 384, 384, 512, 512),
)
_TINY = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
)


def build_tiny_dino(folder: Path) -> Path:
    """Writes a ViT as DINO is published."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.ViTConfig(**_TINY, image_size=32, patch_size=8)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder


def build_tiny_clip(folder: Path, tokenizer: object) -> Path:
    """Writes a CLIP model that reads the texts of a tokenizer."""
    words = dict(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.CLIPConfig(
            text_config={**_TINY, **words},
            vision_config=dict(_TINY, image_size=32, patch_size=8),
            projection_dim=8,
        )
        model = transformers.CLIPModel(config)
    size = dict(height=32, width=32)
    images = transformers.CLIPImageProcessor(
        size=dict(shortest_edge=32), crop_size=size
    )
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def perceptual_weights(kind: str) -> tuple[dict[str, Tensor], dict]:
    """Weights of a network by torchvision's names, and of its heads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(*NETWORKS[kind]()[0]).state_dict()
        heads = {
            f'lin{number}.model.1.weight': torch.rand(1, width, 1, 1)
            for number, width in enumerate(TAPS[kind])
        }
    named = {f'features.{key}': value for key, value in network.items()}
    # what torchvision's files have besides
    named['classifier.1.weight'] = torch.zeros(2, 2)
    return named, heads


def build_lpips(folder: Path, kind: str = 'squeeze') -> Path:
    """Writes a network with heads, and nothing else."""
    network, heads = perceptual_weights(kind)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network, folder / f'{kind}net.pth')
    save_file(heads, folder / 'heads.safetensors')
    return folder
