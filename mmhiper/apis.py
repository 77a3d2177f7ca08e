"""Editors in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmhiper.io import read_checkpoint
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils.shipped import config_path
from mmhiper.utils.work_dir import find_checkpoint, find_config

if TYPE_CHECKING:
    from mmhiper.models import EmbeddingEditor


def list_editors() -> list[str]:
    """Names the editors that ``MODELS.build`` knows.

    Returns:
        list[str]: Their types, sorted.
    """
    from mmhiper.models import EmbeddingEditor

    return sorted(
        name
        for name, module in MODELS.module_dict.items()
        if isinstance(module, type) and issubclass(module, EmbeddingEditor)
    )


def load_editor(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> EmbeddingEditor:
    """Builds an editor and gives it what it has learned.

    Args:
        config (str, Path or Config): A config, its file, the name of one that
            comes with the project ('hiper/dog'), or the work_dir of a
            training run (which holds a copy of its config).
        checkpoint (str or Path, optional): A ``.pth`` checkpoint or a
            ``.safetensors`` export. Defaults to the newest checkpoint of the
            work_dir; with a config and no checkpoint the editor is untrained.
        device (str or torch.device, optional): Defaults to CUDA where there
            is a device, else the CPU.

    Returns:
        EmbeddingEditor: In evaluation mode, ready for ``infer``.

    Raises:
        FileNotFoundError: If a file is missing, or the work_dir has none.
        ValueError: If the checkpoint is of another editor or backbone.
    """
    if not isinstance(config, Config):
        config = Path(config)
        if config.is_dir():
            if checkpoint is None:
                checkpoint = find_checkpoint(config)
            config = find_config(config)
        config = Config.fromfile(config_path(config))
    # read first: a missing file should not cost the loading of a backbone
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    with DefaultScope.overwrite_default_scope(SCOPE):
        editor: EmbeddingEditor = MODELS.build(config.model)
    if state is not None:
        editor.load_state_dict(state)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    editor.to(device)
    editor.eval()
    return editor
