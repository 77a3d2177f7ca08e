"""The project's own format: safetensors with what the tensors belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from mmhiper.io.file_content import read_safetensors
from mmhiper.utils.errors import FileError
from mmhiper.utils.reading import check_file, printable

FORMAT = 'mmhiper'


def write_export(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
) -> None:
    """Writes learned tensors with their metadata.

    Args:
        path (str or Path): The file; its folder must exist.
        tensors (Mapping[str, Tensor]): ``editor.learned_state()``.
        metadata (Mapping[str, str]): ``editor.export_metadata()`` and more,
            such as 'step'. Values are stored as text.
    """
    text = {key: str(value) for key, value in metadata.items()}
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = save(plain, metadata=dict(text, format=FORMAT))
    # safetensors' own writer makes a file that only its owner can read
    Path(path).write_bytes(content)


def read_export(
    path: str | Path,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what :func:`write_export` wrote.

    Args:
        path (str or Path): A ``.safetensors`` file.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: Tensors on the CPU, and the
        metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, or none of ours.
    """
    path = check_file(path, 'an embedding file')
    tensors, metadata = read_safetensors(path)
    if metadata.pop('format', None) != FORMAT:
        raise FileError(
            f'{str(path)!r} is a safetensors file, but not an embedding that '
            f'this package wrote: its metadata has no format={FORMAT!r}. '
            f'It holds: {printable(", ".join(sorted(tensors)[:5]))[:200]}.'
        )
    return tensors, metadata
