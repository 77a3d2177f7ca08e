"""Reading configs, with words for what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmhiper.utils.errors import UserError
from mmhiper.utils.shipped import config_path

_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def read_config(path: str | Path) -> Config:
    """Reads the config of an editor.

    Args:
        path (str or Path): The file, or the name of a config that comes with
            the project, see :func:`config_path`.

    Returns:
        Config: With a ``model``.

    Raises:
        FileNotFoundError: If it, or a config it is based on, does not exist.
        ValueError: If it is no config, or none of an editor.
    """
    path = config_path(path)
    if path.suffix not in _SUFFIXES:
        raise UserError(
            f'Wanted a config, a file that ends in {", ".join(_SUFFIXES)}, '
            f'but got {str(path)!r}.'
        )
    try:
        config = Config.fromfile(path)
    except (SyntaxError, NameError) as error:
        raise UserError(
            f'The config {str(path)!r} cannot be read: {error}'
        ) from error
    if 'model' not in config:
        raise UserError(
            f'The config {str(path)!r} has no `model`, which says what editor '
            'it is about.'
        )
    return config
