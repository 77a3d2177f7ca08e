"""Configs, tools and data, which lie beside the package or inside it."""

from __future__ import annotations

from pathlib import Path

from mmhiper.utils.errors import MissingFileError

_PACKAGE = Path(__file__).parents[1]


def shipped(path: str) -> Path:
    """Finds a file that comes with the project.

    Args:
        path: From the root of the project, such as 'configs/hiper/dog.py'.

    Returns:
        In an installed package below ``.mim``, where `mim` looks for configs
        and tools; in a checkout below its root.
    """
    installed = _PACKAGE / '.mim' / path
    return installed if installed.exists() else _PACKAGE.parent / path


def or_shipped(path: str | Path) -> Path:
    """A picture that a config names: the user's file, else the project's.

    So the configs, which name ``data/dog.png``, run in any folder.

    Args:
        path: A file or folder.

    Returns:
        The project's, if the path begins with ``data/`` and is there but not
        here; otherwise the path as it is.
    """
    path = Path(path)
    if path.exists() or path.parts[:1] != ('data',):
        return path
    known = shipped(path.as_posix())
    return known if known.exists() else path


def list_configs() -> list[str]:
    """Names the configs that come with the project.

    Returns:
        Such as 'hiper/dog', sorted.
    """
    root = shipped('configs')
    return sorted(
        path.relative_to(root).with_suffix('').as_posix()
        for path in root.glob('*/*.py')
        if path.parent.name != '_base_'
    )


def config_path(config: str | Path) -> Path:
    """Finds a config by its path, or by its name in the project.

    Args:
        config: A file; or, of a config that comes with the project, its name
            or its path there: 'hiper/dog', 'configs/hiper/dog.py'.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If it is neither; the message lists the names.
    """
    path = Path(config)
    if path.is_file():
        return path
    name = path.with_suffix('').as_posix().removeprefix('configs/')
    if name not in list_configs():
        raise MissingFileError(
            f'There is no config file {str(config)!r}, and no config of that '
            f'name comes with mmhiper. Known: {", ".join(list_configs())}.'
        )
    return shipped(f'configs/{name}.py')
