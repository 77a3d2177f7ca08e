"""What a learned result depends on, as a name for its folder."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

from mmengine.config import Config

DECIDES = (
    'model',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
    'train_cfg',
)


def hash_run(cfg: Config, pretrained: Path) -> str:
    """A short hash of what decides what is learned, but for the pictures.

    Args:
        cfg: Of the run. The initialiser of a word is that of its concept.
        pretrained: The folder of the weights.

    Returns:
        Twelve letters.
    """
    settings = copy.deepcopy({part: cfg.get(part) for part in DECIDES})
    settings['model'].pop('initialize_token', None)
    settings['batch_size'] = cfg.train_dataloader.batch_size
    digest = hashlib.sha256(repr(settings).encode())
    for path in sorted(pretrained.rglob('*.safetensors')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
