"""Configs and tools, which lie beside the package or inside it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(path: str) -> Path:
    """Finds a file that comes with the project.

    Args:
        path (str): From the root of the project, such as
            'configs/hiper/dog.py'.

    Returns:
        Path: In an installed package below ``.mim``, where `mim` looks for
        configs and tools; in a checkout below its root.
    """
    installed = _PACKAGE / '.mim' / path
    return installed if installed.exists() else _PACKAGE.parent / path
