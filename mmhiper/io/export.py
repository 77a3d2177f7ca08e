"""The project's own format: safetensors with what the tensors belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmhiper.io.file_content import pack, read_safetensors
from mmhiper.io.model_kinds import model_kind
from mmhiper.io.modelspec import describe, without_fields
from mmhiper.io.record import KEY, parse_record, to_json
from mmhiper.utils.errors import FileError
from mmhiper.utils.reading import check_file, printable

FORMAT = 'mmhiper'


def write_export(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes learned tensors with what they belong to.

    Args:
        path: The file; its folder must exist.
        tensors: ``editor.learned_state()``.
        record: ``editor.export_metadata()``, and 'step' and 'seed' where there
            are any.
        facts: More for user interfaces: ``editor.model_facts()`` and so on,
            see :func:`mmhiper.io.modelspec.describe`.
    """
    metadata = {'format': FORMAT, KEY: to_json(dict(record))}
    metadata |= describe(record, facts or {})
    # safetensors' own writer makes a file that only its owner can read
    Path(path).write_bytes(pack(tensors, metadata))


def read_export(
    path: str | Path,
) -> tuple[dict[str, Tensor], Any]:
    """Reads what :func:`write_export` wrote.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        Tensors on the CPU, and the record, for
        :func:`mmhiper.io.record.read_record` to check.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, or none of ours.
    """
    path = check_file(path, 'an embedding file')
    tensors, metadata = read_safetensors(path)
    if metadata.get('format') != FORMAT:
        kind = model_kind(tensors)
        if kind is not None:
            raise FileError(
                f'{str(path)!r} is not what an editor has learned: {kind}'
            )
        raise FileError(
            f'{str(path)!r} is a safetensors file, but not an embedding that '
            f'this package wrote: its metadata has no format={FORMAT!r}. '
            f'It holds: {printable(", ".join(sorted(tensors)[:5]))[:200]}.'
        )
    return tensors, document_of(metadata, path)


def document_of(metadata: Mapping[str, str], path: Path) -> Any:
    """The record in the metadata of an export.

    Args:
        metadata: All entries.
        path: The file, for messages.

    Returns:
        Not checked yet. Version 0.1.0 wrote an entry per value.

    Raises:
        ValueError: If it is no JSON.
    """
    if KEY in metadata:
        return parse_record(metadata[KEY], path)
    values = without_fields(metadata)
    return {key: val for key, val in values.items() if key != 'format'}
