"""Training checkpoints, read weights-only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmhiper.io.export import read_export
from mmhiper.io.file_content import read_content
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import check_file

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
    check_file(path, 'a checkpoint')
    try:
        content = read_content(path).entries
    except UserError as error:
        raise FileError(
            f'{str(path)!r} is not a complete checkpoint: {error}'
        ) from error
    state, meta = content.get('state_dict'), content.get('meta')
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor)
        for name, tensor in state.items()
    ):
        raise FileError(
            f'{str(path)!r} is not a training checkpoint: it has no '
            "'state_dict' of tensors by their names. Name an iter_N.pth."
        )
    noted = meta.get('embedding') if isinstance(meta, Mapping) else None
    if not isinstance(noted, Mapping) or not noted:  # a stock runner wrote it
        own = own_record(state)
        noted = {key: own[key] for key in _OWN if key in own}
    if not isinstance(state, OrderedDict):
        state = OrderedDict(state)
    return state, dict(noted)


def own_record(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a state dict says of the editor that it is of.

    Args:
        state (Mapping[str, Any]): From a file.

    Returns:
        dict[str, Any]: The metadata of its top module, of any content; empty
        where there is none.
    """
    metadata = getattr(state, '_metadata', None)
    own = metadata.get('') if isinstance(metadata, Mapping) else None
    return dict(own) if isinstance(own, Mapping) else {}


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
