"""Editors in one call."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmhiper.io import read_export
from mmhiper.registry import MODELS, SCOPE
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
        config (str, Path or Config): A config, its file, or the work_dir of a
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
        if not config.is_file():
            raise FileNotFoundError(
                f'There is no config file or work_dir {str(config)!r}.'
            )
        config = Config.fromfile(config)
    # read first: a missing file should not cost the loading of a backbone
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    with DefaultScope.overwrite_default_scope(SCOPE):
        editor = MODELS.build(config.model)
    if state is not None:
        editor.load_state_dict(state)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return editor.to(device).eval()


def read_checkpoint(path: str | Path) -> OrderedDict[str, Tensor]:
    """Reads the learned tensors of a checkpoint or of an export.

    Args:
        path (str or Path): A ``.pth`` or ``.safetensors`` file.

    Returns:
        OrderedDict[str, Tensor]: A state dict that says, in its metadata,
        which editor and backbone it belongs to, where the file does.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint.
    """
    path = Path(path)
    if path.suffix == '.safetensors':
        tensors, record = read_export(path)
        return _with_record(tensors, record)
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {str(path)!r}.')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f'{str(path)!r} is not a complete checkpoint of tensors and plain '
            f'values (PlainCheckpointHook writes those): {reason}'
        ) from error
    if not isinstance(content, dict) or 'state_dict' not in content:
        raise ValueError(
            f'{str(path)!r} is not a training checkpoint: it has no '
            "'state_dict'."
        )
    return content['state_dict']


def _with_record(
    tensors: dict[str, Tensor], record: dict[str, Any]
) -> OrderedDict[str, Tensor]:
    """Makes a state dict of an export.

    Args:
        tensors (dict[str, Tensor]): By name.
        record (dict): The metadata of the file.

    Returns:
        OrderedDict[str, Tensor]: With the record where PyTorch keeps its own.
    """
    state = OrderedDict(tensors)
    state._metadata = {'': record}  # type: ignore[attr-defined]
    return state
