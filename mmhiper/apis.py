"""Editors in one call."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmhiper.io import read_export
from mmhiper.registry import MODELS, SCOPE

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


def find_config(work_dir: Path) -> Path:
    """The config that a run left in its work_dir.

    Args:
        work_dir (Path): The folder.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is not exactly one.
    """
    files = sorted(work_dir.glob('*.py'))
    if len(files) != 1:
        raise FileNotFoundError(
            f'The work_dir {str(work_dir)!r} should hold the config of its '
            f'run, one .py file, but has {len(files)}. Name the config file.'
        )
    return files[0]


def find_checkpoint(work_dir: Path) -> Path:
    """The checkpoint that the last run in a work_dir wrote last.

    Args:
        work_dir (Path): The folder, which may have been moved since.

    Returns:
        Path: The file that MMEngine's note ``last_checkpoint`` names (an
        earlier, longer run may have left larger numbers); without a usable
        note the ``iter_N.pth`` with the largest N.

    Raises:
        FileNotFoundError: If there is none.
    """
    note = work_dir / 'last_checkpoint'
    if note.is_file():
        # empty when the run was killed while writing it
        noted = work_dir / Path(note.read_text().strip()).name
        if noted.is_file():
            return noted
    steps = {
        int(match[1]): path
        for path in work_dir.glob('iter_*.pth')
        if (match := re.fullmatch(r'iter_(\d+)\.pth', path.name))
    }
    if not steps:
        raise FileNotFoundError(
            f'The work_dir {str(work_dir)!r} has no checkpoint (iter_*.pth) '
            'yet. Train first, or name a checkpoint.'
        )
    return steps[max(steps)]


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
            f'values: {reason}'
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
