"""Small real training runs for the tests."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from mmhiper.engine.launch import train

REPO = Path(__file__).parents[1]
DOG = REPO / 'configs' / 'hiper' / 'dog.py'


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return str(listener.getsockname()[1])


def draw_image(path: Path, seed: int = 0, size: int = 64) -> Path:
    """Saves a picture of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(blocks).resize((size, size))
    image.save(path)
    return path


def options(
    tmp_path: Path,
    backbone: Path,
    iters: int = 2,
    file: Path = DOG,
    **more: Any,
) -> dict[str, Any]:
    """What turns a config of the project into a run of seconds."""
    image = tmp_path / 'image.png'
    if not image.exists():
        draw_image(image)
    data = {'train_dataloader.dataset.img': str(image)}
    dataset = Config.fromfile(file).train_dataloader.dataset
    if dataset.type == 'TextualInversionDataset':
        several = not isinstance(dataset.concept_dir, str)
        folders = ['.'] * len(dataset.concept_dir) if several else '.'
        data = {
            'train_dataloader.dataset.data_root': str(tmp_path),
            'train_dataloader.dataset.concept_dir': folders,
            'train_dataloader.dataset.template': ['a {}', 'my {}'],
            'model.initialize_token': 'x',  # the tiny tokenizer has letters
        }
    return {
        # mmengine lets runs of the same name and second share their state
        'experiment_name': uuid.uuid4().hex,
        'work_dir': str(tmp_path / 'run'),
        'model.sd.pretrained': str(backbone),
        'model.sd.without_cuda': None,
        'train_cfg.max_iters': iters,
        **data,
        **more,
    }


def config(
    tmp_path: Path,
    backbone: Path,
    iters: int = 2,
    file: Path = DOG,
    previews: bool = False,
    **more: Any,
) -> Config:
    """A config of the project as a run of seconds; `previews`: and curves."""
    cfg = Config.fromfile(file)
    cfg.merge_from_dict(options(tmp_path, backbone, iters, file, **more))
    if not previews:
        cfg.custom_hooks = [
            hook
            for hook in cfg.custom_hooks
            if hook.type not in ('PreviewHook', 'LossCurveHook')
        ]
    return cfg


def learn(cfg: Config, resume: str | None = None) -> Tensor:
    """Trains and returns the embedding: (K, N, D), or (n, D) of a word."""
    cfg.experiment_name = uuid.uuid4().hex
    train(cfg, resume=resume)
    return embedding_of(last(cfg))


def last(cfg: Config) -> Path:
    """The last checkpoint of a run."""
    return Path(cfg.work_dir, f'iter_{cfg.train_cfg.max_iters}.pth')


def embedding_of(checkpoint: Path) -> Tensor:
    """The embedding in a checkpoint, read by plain torch.load."""
    return learned_in(state_in(checkpoint))


def state_in(checkpoint: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, read by plain torch.load."""
    state: dict[str, Tensor] = torch.load(checkpoint, weights_only=True)[
        'state_dict'
    ]
    return state


def learned_in(state: dict[str, Tensor]) -> Tensor:
    """The learned tensor of an editor's state dict."""
    names = ('embedding.tail', 'embedding.rows')
    return next(state[name] for name in names if name in state)
