"""Finding the weights of metrics, which are data wherever they come from."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from torch import Tensor

from mmhiper.io.file_content import read_content
from mmhiper.models.loading import loading, quiet
from mmhiper.utils.errors import MissingFileError

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')
_HUB_ID = re.compile(r'[\w-][\w.-]*/[\w.-]+')


def weight_files(name: str, what: str) -> list[Path]:
    """Finds files of weights.

    Args:
        name: A file, a folder, or the id of a hub.
        what: Whose weights, for messages.

    Returns:
        Sorted, at least one.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the hub does not answer.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir() and _HUB_ID.fullmatch(name):
        from huggingface_hub import snapshot_download

        patterns = [f'*{suffix}' for suffix in SUFFIXES]
        with loading(name, what, 'Give a folder or a hub id.'), quiet():
            path = Path(snapshot_download(name, allow_patterns=patterns))
    found = []
    if path.is_dir():
        found = [
            each for each in sorted(path.iterdir()) if each.suffix in SUFFIXES
        ]
    if not found:
        raise MissingFileError(
            f'Wanted {what}, but {name!r} is no folder with files of weights '
            f'({", ".join(SUFFIXES)}), nor such a file. Check the path.'
        )
    return found


def packaged(package: str, path: str) -> Path | None:
    """Finds a file that a package ships; nothing of it is imported.

    Args:
        package: Its import name, with no dot in it.
        path: In its folder.

    Returns:
        None where it is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, path)
        if file.is_file():
            return file
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file.

    Raises:
        ValueError: If it is damaged, or needs code of its own to be loaded.
    """
    entries = read_content(path).entries
    return {
        name: value
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }
