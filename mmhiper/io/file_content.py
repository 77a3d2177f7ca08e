"""Embedding files as mappings of names to tensors and plain values.

Files come from anywhere. Only tensors and plain values are taken from them;
nothing that a file names is imported or called.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from mmhiper.io.torch_file import read_torch_file
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import FileError, MissingFileError
from mmhiper.utils.file_kinds import wrong_kind
from mmhiper.utils.reading import check_file, reading


@dataclass(frozen=True, eq=False)
class FileContent:
    """What was read from a file, or is to be written to one.

    Args:
        entries: Tensors and plain values by name.
        metadata: That of a safetensors file.
        placeholder: What to call a word that the file has no name for.
    """

    path: Path
    entries: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    placeholder: str | None = None


def read_content(
    path: str | Path, placeholder: str | None = None
) -> FileContent:
    """Reads a file, of the kind that its first bytes tell.

    Args:
        path: A safetensors or PyTorch file.
        placeholder: The name of a tensor that is alone in a file, and has
            none.

    Returns:
        What it holds, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, damaged, no mapping, or needs
            code of its own to be loaded.
    """
    path = check_file(path, 'an embedding file')
    if is_safetensors(path):
        tensors, metadata = read_safetensors(path)
        return FileContent(path, tensors, metadata, placeholder)
    content = read_torch_file(path)
    if isinstance(content, Tensor) and placeholder is not None:
        content = {placeholder: content}
    elif isinstance(content, Tensor):
        raise FileError(
            f'{str(path)!r} should hold tensors by their names, but holds a '
            f'bare tensor {tuple(content.shape)}. If these are rows of a '
            "word, name it (`placeholder='<word>'`) to `read_token_file` or "
            '`mmhiper convert`.'
        )
    if not isinstance(content, Mapping):
        raise FileError(
            f'{str(path)!r} should hold tensors by their names, but holds a '
            f'{type(content).__name__}.'
        )
    return FileContent(path, content, placeholder=placeholder)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do.

    Args:
        path: The file, which exists.

    Returns:
        True for incomplete ones, too.
    """
    with path.open('rb') as file:
        head = file.read(9)
    # the length of the header, below terabytes, then the header, a JSON
    return head[6:] == b'\0\0{'


def read_safetensors(
    path: Path,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file.

    Args:
        path: The file, which exists.

    Returns:
        Tensors on the CPU, and the metadata.

    Raises:
        ValueError: If it is damaged, or of another kind.
    """
    kind = None if is_safetensors(path) else wrong_kind(path, 'safetensors')
    if kind is not None:
        raise FileError(kind)
    with (
        reading(path, 'is not a complete safetensors file', 'Get it again.'),
        safetensors.safe_open(path, framework='pt') as file,
    ):
        metadata = dict(file.metadata() or {})
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, metadata


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Lays out a safetensors file, the same one for the same content.

    Args:
        tensors: By name.
        metadata: Where it has fields of :mod:`mmhiper.io.modelspec`, the hash
            of the tensors is added.

    Returns:
        Its bytes.
    """
    # the library's own writer mixes the entries of the metadata anew each time
    data = save({name: each.contiguous() for name, each in tensors.items()})
    end = 8 + int.from_bytes(data[:8], 'little')
    notes = dict(metadata)
    if any(name.startswith('modelspec.') for name in notes):
        digest = hashlib.sha256(memoryview(data)[end:]).hexdigest()
        notes['modelspec.hash_sha256'] = f'0x{digest}'
    header = {'__metadata__': dict(sorted(notes.items()))} if notes else {}
    header |= json.loads(data[8:end])
    text = json.dumps(header, ensure_ascii=False, separators=(',', ':'))
    head = text.encode()
    head += b' ' * (-len(head) % 8)  # so that tensors begin where words do
    return len(head).to_bytes(8, 'little') + head + data[end:]


def write_content(content: FileContent) -> None:
    """Writes a file in one step; its suffix says of which kind.

    Args:
        content: With tensors alone for ``.safetensors``.

    Raises:
        FileNotFoundError: If its folder does not exist.
    """
    path = content.path
    if not path.parent.is_dir():
        raise MissingFileError(
            f'There is no folder {str(path.parent)!r} to write '
            f'{path.name!r} to. Create it first.'
        )
    if path.suffix == '.safetensors':
        data = pack(content.entries, content.metadata)
    else:
        # a file would remember the temporary name that it was written under
        buffer = io.BytesIO()
        torch.save(dict(content.entries), buffer)
        data = buffer.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
