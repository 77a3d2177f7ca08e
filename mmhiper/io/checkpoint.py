"""Training checkpoints, read weights-only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmhiper.io.export import read_export
from mmhiper.io.file_content import read_content
from mmhiper.io.model_kinds import model_kind
from mmhiper.io.record import KEY, Record, read_record
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import check_file

_OWN = ('editor', 'backbone')  # what every state dict of an editor says
SUFFIXES = ('.pth', '.safetensors')


def read_checkpoint(path: str | Path) -> OrderedDict[str, Tensor]:
    """Reads the learned tensors of a checkpoint or of an export.

    Checkpoints that MMEngine wrote without ``PlainCheckpointHook`` are read
    too; the objects in their logs are skipped.

    Args:
        path: A ``.pth`` or ``.safetensors`` file.

    Returns:
        A state dict that says, in its metadata, which editor and backbone it
        belongs to, where the file does.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint.
    """
    return read_learned(path)[0]


def read_learned(
    path: str | Path,
) -> tuple[OrderedDict[str, Tensor], Record]:
    """Reads a checkpoint or an export with what its tensors belong to.

    Args:
        path: A ``.pth`` or ``.safetensors`` file.

    Returns:
        As of :func:`read_checkpoint`, and what is known of them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or its record is damaged.
    """
    path = Path(path)
    if path.suffix == '.safetensors':
        tensors, document = read_export(path)
        record = read_record(document, path)
        return _with_note(tensors, record), record
    check_file(path, 'a checkpoint')
    try:
        content = read_content(path).entries
    except UserError as error:
        raise FileError(
            f'{str(path)!r} is not a complete checkpoint: {error}'
        ) from error
    state, meta = content.get('state_dict'), content.get('meta')
    kind = model_kind(content)
    if kind is not None and 'editor' not in notes_of(state).get('', {}):
        raise FileError(
            f'{str(path)!r} is not what an editor has learned: {kind}'
        )
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor)
        for name, tensor in state.items()
    ):
        raise FileError(
            f'{str(path)!r} is not a training checkpoint: it has no '
            "'state_dict' of tensors by their names. Name an iter_N.pth."
        )
    document = meta.get(KEY) if isinstance(meta, Mapping) else None
    notes = notes_of(state)
    state = OrderedDict(state)
    state._metadata = notes  # type: ignore[attr-defined]
    if document is None:  # a stock runner wrote it
        own = notes.get('', {})
        document = {name: own[name] for name in _OWN if name in own}
    return state, read_record(document, path)


def forget_backbone(state: OrderedDict[str, Tensor]) -> None:
    """Lets a state dict load into an editor on any backbone that it fits.

    Args:
        state: Of :func:`read_checkpoint`, changed in place.
    """
    notes = state._metadata  # type: ignore[attr-defined]
    notes.get('', {}).pop('backbone', None)


def notes_of(state: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What PyTorch and the editor noted in a state dict, by module."""
    notes = getattr(state, '_metadata', None)
    return {
        module: {
            name: value
            for name, value in note.items()
            if isinstance(value, int if name == 'version' else str)
        }
        for module, note in (notes.items() if isinstance(notes, dict) else ())
        if isinstance(note, dict)
    }


def _with_note(
    tensors: dict[str, Tensor], record: Record
) -> OrderedDict[str, Tensor]:
    """Makes a state dict of an export, with the note that it would have."""
    state = OrderedDict(tensors)
    note = {name: getattr(record, name) for name in _OWN}
    state._metadata = {'': note}  # type: ignore[attr-defined]
    return state
