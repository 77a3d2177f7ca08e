"""Reading configs: a Python file is code, the others are data alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.registry import Registry

from mmhiper import registry
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import check_file
from mmhiper.utils.shipped import config_path, shipped
from mmhiper.utils.text_files import read_text

_SUFFIXES = ('.py', '.json', '.yaml', '.yml')
_BASE = '_base_'
# MMEngine reads Python configs, and takes nothing else.
_PLAIN = 'Save Python configs as UTF-8 without a mark.'
_DEEPEST = 20  # levels of a config, and of configs that are based on others
_MOST_VALUES = 100_000  # a few lines of YAML can mean billions
# What a data file may not say: each would have MMEngine import a module.
_REFUSED = {
    'custom_imports': 'imports code, which only a Python config may do',
    '_scope_': 'is not for a config to choose',
}
# Types that are no names of registries, by the key that their dict is under;
# who takes them knows a fixed list.
_NO_REGISTRY = {'scheduler': r'\w+Scheduler', 'clip_grad': 'norm|value'}


def read_config(path: str | Path) -> Config:
    """Reads the config of an editor.

    A Python config is run. A YAML or JSON config is data: its types are names
    of registries, and its bases are data too, or come with this package.

    Args:
        path: The file, or the name of a config that comes with the project,
            see :func:`config_path`.

    Returns:
        With a ``model``.

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
        config = _run(path) if path.suffix == '.py' else _load(path)
    except UnicodeDecodeError as error:
        raise UserError(
            f'A config that {str(path)!r} is based on cannot be read: '
            f'{error.reason} at byte {error.start}. {_PLAIN}'
        ) from error
    except (SyntaxError, NameError) as error:
        remedy = f'. {_PLAIN}' if 'U+FEFF' in str(error) else ''
        raise UserError(
            f'The config {str(path)!r} cannot be read: {error}{remedy}'
        ) from error
    if not isinstance(config.get('model'), dict):
        raise UserError(
            f'The config {str(path)!r} has no `model`, a dict that says what '
            'editor it is about.'
        )
    return config


def _run(path: Path) -> Config:
    """Runs a Python config."""
    text = read_text(path, 'a config')
    if path.read_bytes() != text.encode():
        raise UserError(
            f'The config {str(path)!r} cannot be read as Python: it has a '
            f'mark of its encoding, or is UTF-16. {_PLAIN}'
        )
    return Config.fromfile(path)


def _load(path: Path, depth: int = 0) -> Config:
    """Reads a YAML or JSON config on its bases, running nothing."""
    text = read_text(path, 'a config')
    values = _parse(text, path)
    bases = values.pop(_BASE, [])
    _check(values, path)
    if depth == _DEEPEST:
        raise FileError(f'The config {str(path)!r} is based on itself.')
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or len(bases) > _DEEPEST:
        raise FileError(
            f'The config {str(path)!r}: `{_BASE}` must be a file or a list of '
            f'up to {_DEEPEST}, but is {bases!r:.80}.'
        )
    # with its text, which MMEngine would read as UTF-8 alone
    merged = Config(dict(), cfg_text=text, filename=str(path))
    for base in bases:
        file = check_file(
            path.parent / str(base),
            f'a config that {str(path)!r} is based on',
        )
        if file.suffix != '.py':
            below = _load(file, depth + 1)
        elif file.resolve().is_relative_to(shipped('configs').resolve()):
            below = Config.fromfile(file)
        else:
            raise FileError(
                f'The config {str(path)!r} is based on Python code, '
                f'{str(file)!r}, which only a Python config may be (or one '
                'on a config that comes with mmhiper).'
            )
        _merge(merged, below.to_dict(), path)
    _merge(merged, values, path)
    return merged


def _merge(config: Config, values: dict[str, Any], path: Path) -> None:
    """Lays values over a config, as MMEngine does it."""
    for name in values:
        if not str(name).isidentifier():  # 'a.b' would reach into `a`
            raise FileError(
                f'The config {str(path)!r} has at its top {name!r:.80}, '
                'which is no name of a setting.'
            )
    try:
        config.merge_from_dict(values)
    except (KeyError, TypeError) as error:
        raise FileError(
            f'The config {str(path)!r} does not fit what it is based on: '
            f'{" ".join(str(error).split())}'
        ) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, and the tuples that MMEngine writes."""


_Loader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


def _parse(text: str, path: Path) -> dict[str, Any]:
    """The values in a YAML or JSON file."""
    try:
        if path.suffix == '.json':
            values = json.loads(text)
        else:
            # the safe loader, with one more kind of plain value
            values = _Loader(text).get_single_data()
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise FileError(
            f'The config {str(path)!r} cannot be read as data: {reason}'
        ) from error
    if not isinstance(values, dict):
        raise FileError(
            f'The config {str(path)!r} should hold names and values, but '
            f'holds a {type(values).__name__}.'
        )
    return values


def _check(values: dict[str, Any], path: Path) -> None:
    """Refuses what would lead MMEngine to import something."""
    for number, (place, key, value) in enumerate(_walk(values, [])):
        if number == _MOST_VALUES:
            raise FileError(
                f'The config {str(path)!r} has more than {_MOST_VALUES:,} '
                'values.'
            )
        fault = _REFUSED.get(key)
        wanted = 'a name of a registry (no import path)'
        if key == 'default_scope' and value != registry.SCOPE:
            fault = f'must be {registry.SCOPE!r}'
        elif key in ('type', 'constructor') and not _is_known(
            value, place[-2] if len(place) > 1 else ''
        ):
            fault = f'must be {wanted}, but is {value!r:.80}'
        elif isinstance(value, str) and re.search(r'\{\{.*\}\}', value):
            fault = 'has a {{placeholder}}, which only a Python config may'
        if fault:
            raise FileError(
                f'The config {str(path)!r}: `{".".join(place)}` {fault}.'
            )


def _walk(
    value: Any, place: list[str]
) -> Iterator[tuple[list[str], str, Any]]:
    """All keys of nested values, with their places."""
    if len(place) > _DEEPEST:
        raise FileError(f'A config is nested more than {_DEEPEST} levels.')
    if isinstance(value, dict):
        for key, inner in value.items():
            yield [*place, str(key)], str(key), inner
            yield from _walk(inner, [*place, str(key)])
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield [*place, str(number)], '', inner
            yield from _walk(inner, [*place, str(number)])


def _is_known(name: Any, parent: str) -> bool:
    """Whether a type is in a registry of ours, or of MMEngine's."""
    if not isinstance(name, str):
        return False
    pattern = _NO_REGISTRY.get(parent)
    if pattern is not None and re.fullmatch(pattern, name):
        return True
    import mmengine.runner  # noqa: F401  fills the registries of MMEngine

    scope, _, bare = name.rpartition('.')
    found = False
    for ours in vars(registry).values():
        if isinstance(ours, Registry) and ours.scope == registry.SCOPE:
            ours.import_from_location()
            while ours is not None:
                found |= scope in ('', ours.scope) and bare in ours.module_dict
                ours = ours.parent
    return found
