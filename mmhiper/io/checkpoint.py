"""Training checkpoints, read weights-only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmhiper.io.export import read_export
from mmhiper.io.file_content import read_content
from mmhiper.utils.errors import MissingFileError, UserError

_OWN = ('editor', 'backbone')  # what every state dict of an editor says


def read_checkpoint(path: str | Path) -> OrderedDict[str, Tensor]:
    """Reads the learned tensors of a checkpoint or of an export.

    Checkpoints that MMEngine wrote without ``PlainCheckpointHook`` are read
    too; the objects in their logs are skipped.

    Args:
        path (str or Path): A ``.pth`` or ``.safetensors`` file.

    Returns:
        OrderedDict[str, Tensor]: A state dict that says, in its metadata,
        which editor and backbone it belongs to, where the file does.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint.
    """
    return read_learned(path)[0]


def read_learned(
    path: str | Path,
) -> tuple[OrderedDict[str, Tensor], dict[str, str]]:
    """Reads a checkpoint or an export with what its tensors belong to.

    Args:
        path (str or Path): A ``.pth`` or ``.safetensors`` file.

    Returns:
        tuple[OrderedDict[str, Tensor], dict[str, str]]: As of
        :func:`read_checkpoint`, and what ``editor.export_metadata()`` was,
        with 'step' and 'seed'; empty where the file does not say.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint.
    """
    path = Path(path)
    if path.suffix == '.safetensors':
        tensors, exported = read_export(path)
        return _with_record(tensors, exported), exported
    if not path.is_file():
        raise MissingFileError(f'There is no checkpoint {str(path)!r}.')
    try:
        content = read_content(path).entries
    except ValueError as error:
        raise UserError(
            f'{str(path)!r} is not a complete checkpoint: {error}'
        ) from error
    if 'state_dict' not in content:
        raise UserError(
            f'{str(path)!r} is not a training checkpoint: it has no '
            "'state_dict'."
        )
    state, meta = content['state_dict'], content.get('meta')
    noted = meta.get('embedding') if isinstance(meta, Mapping) else None
    if not noted:  # a stock runner wrote it
        own = getattr(state, '_metadata', {}).get('', {})
        noted = {key: own[key] for key in _OWN if key in own}
    return state, dict(noted)


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
