"""Embedding files as mappings of names to tensors and plain values.

Files come from anywhere. Only tensors and plain values are taken from them;
nothing that a file names is imported or called.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, serialization

from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import MissingFileError, UserError


@dataclass(frozen=True, eq=False)
class FileContent:
    """What was read from a file, or is to be written to one.

    Args:
        path (Path): The file.
        entries (Mapping[str, Any]): Tensors and plain values by name.
        metadata (Mapping[str, str]): That of a safetensors file.
    """

    path: Path
    entries: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_content(path: str | Path) -> FileContent:
    """Reads a file, of the kind that its first bytes tell.

    Args:
        path (str or Path): A safetensors or PyTorch file.

    Returns:
        FileContent: What it holds, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, damaged, no mapping, or needs
            code of its own to be loaded.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(
            f'Wanted an embedding file, but {str(path)!r} is a folder. Name '
            'the file in it.'
        )
    if not path.is_file():
        raise MissingFileError(f'There is no embedding file {str(path)!r}.')
    with path.open('rb') as file:
        head = file.read(9)
    # the length of the header, then the header, which is JSON
    if head[8:] == b'{':
        tensors, metadata = read_safetensors(path)
        return FileContent(path, tensors, metadata)
    content = _read_pickled(path)
    if not isinstance(content, Mapping):
        raise UserError(
            f'{str(path)!r} should hold tensors by their names, but holds a '
            f'{type(content).__name__}.'
        )
    return FileContent(path, content)


def read_safetensors(
    path: Path,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file.

    Args:
        path (Path): The file, which exists.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: Tensors on the CPU, and the
        metadata.

    Raises:
        ValueError: If it is damaged, or of another kind.
    """
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            metadata = dict(file.metadata() or {})
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, metadata
    except safetensors.SafetensorError as error:
        raise UserError(
            f'{str(path)!r} is not a complete safetensors file: {error}'
        ) from error


def write_content(content: FileContent) -> None:
    """Writes a file in one step; its suffix says of which kind.

    Args:
        content (FileContent): With tensors alone for ``.safetensors``.

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
        data = save(dict(content.entries), metadata=dict(content.metadata))
    else:
        # a file would remember the temporary name that it was written under
        buffer = io.BytesIO()
        torch.save(dict(content.entries), buffer)
        data = buffer.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


class _Skipped:
    """Stands for an object that has nothing to do with the weights."""

    def __init__(self, *args: Any) -> None:
        """Forgets what it would have been made of."""

    def __setstate__(self, state: Any) -> None:
        """Forgets what it would have held."""


class _Parameters(dict[str, Tensor]):
    """Stands for a ``ParameterDict``: the tensors by name, nothing else."""

    def __setstate__(self, state: Any) -> None:
        self.update(state['_parameters'])


# What trainers of the field leave in their files beside tensors and plain
# values. MMEngine writes the history of its logs into each checkpoint, as
# objects of NumPy; the original Textual Inversion keeps its rows in a module.
# None of them is loaded: the stand-ins above take their places.
_STAND_INS: dict[str, type] = {
    'builtins.getattr': _Skipped,
    'mmengine.logging.history_buffer.HistoryBuffer': _Skipped,
    'numpy._core.multiarray._reconstruct': _Skipped,
    'numpy._core.multiarray.scalar': _Skipped,
    'numpy.core.multiarray._reconstruct': _Skipped,
    'numpy.core.multiarray.scalar': _Skipped,
    'numpy.dtype': _Skipped,
    'numpy.ndarray': _Skipped,
    'torch.nn.modules.container.ParameterDict': _Parameters,
}


def _with_name(base: type, full_name: str) -> type:
    """A subclass that PyTorch finds under the name that a file gives."""
    module, _, name = full_name.rpartition('.')
    return type(name, (base,), {'__module__': module, '__qualname__': name})


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Lets weights-only loading meet our stand-ins by the foreign names.

    PyTorch looks names up in a list, which is put back at the end, and never
    imports what it finds there.
    """
    before = serialization.get_safe_globals()
    serialization.add_safe_globals(
        [_with_name(base, name) for name, base in _STAND_INS.items()]
    )
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _read_pickled(path: Path) -> Any:
    """Loads a PyTorch file, weights-only.

    Args:
        path (Path): The file, which exists.

    Returns:
        Any: Tensors and plain values, and stand-ins for what is known to be
        harmless to skip.

    Raises:
        ValueError: If the file needs more, is damaged, or of another kind.
    """
    try:
        with _stand_ins(), path.open('rb') as file:
            # A checkpoint of gigabytes may hold rows of kilobytes: mapped,
            # only these are read. Files of old PyTorch cannot be mapped, and
            # a wrong suffix would mislead PyTorch.
            mapped = path.suffix != '.safetensors' and zipfile.is_zipfile(file)
            file.seek(0)
            return torch.load(
                path if mapped else file,
                map_location='cpu',
                weights_only=True,
                mmap=mapped,
            )
    except Exception as error:
        foreign = re.search(r'(?:GLOBAL|class) ([\w.]+)', str(error))
        if foreign is None:
            raise UserError(
                f'{str(path)!r} is neither a safetensors nor a PyTorch file, '
                'or an incomplete one (an interrupted download, or a web '
                'page in its place?).'
            ) from error
        raise UserError(
            f'{str(path)!r} needs more than tensors and plain values: to load '
            f'it would run {foreign[1]!r}. Files like this can do anything '
            'to your machine and are not loaded. If you trust who made it, '
            'have it saved again where it was made, with the rows alone: '
            "torch.save({'<word>': rows}, 'word.bin')."
        ) from error
