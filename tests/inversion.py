"""Editors that invert a picture, tiny and trained in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from mmengine.optim import build_optim_wrapper
from tiny import batch_of
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from mmhiper.registry import MODELS

TOKENS = 17  # 4 x 4 patches, and one of all


def with_image_encoder(
    folder: Path, target: Path, width: int, projection: int = 16
) -> Path:
    """Copies a tiny model and puts an image encoder beside its parts."""
    shutil.copytree(folder, target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=4,
                image_size=32,
                patch_size=8,
                projection_dim=projection,
            )
        )
        # the layer norm of a trained model is not the identity
        for weight in encoder.vision_model.post_layernorm.parameters():
            weight.data.normal_()
    transformers_logging.disable_progress_bar()
    encoder.save_pretrained(target / 'image_encoder')
    return target


def make(folder: Path, kind: str = 'StyleDiffusion', **options: Any) -> Any:
    """Builds an editor of one kind as a config would."""
    config = dict(
        type=f'mmhiper.{kind}',
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        source_text='a dog',
        target_text='a cat',
        num_steps=4,
    )
    return MODELS.build({**config, **options})


def batch(editor: Any, picture: Tensor) -> dict:
    """A preprocessed batch of one picture."""
    return editor.data_preprocessor(batch_of([picture], [0]), True)


def train(editor: Any, picture: Tensor, lr: float = 1e-2) -> list[dict]:
    """Walks the whole curriculum with a plain loop; returns all logs."""
    optimizer = build_optim_wrapper(
        editor, dict(optimizer=dict(type='Adam', lr=lr))
    )
    logs = []
    while not editor.finished:
        log = editor.train_step(batch_of([picture], [0]), optimizer)
        logs.append({name: value.item() for name, value in log.items()})
    return logs
