"""Values of the command line in place of those of a config."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from mmhiper import registry
from mmhiper.engine.settings import top_settings
from mmhiper.utils import register_all_modules
from mmhiper.utils.arguments import Argument, arguments_of, fits
from mmhiper.utils.errors import UserError
from mmhiper.utils.registries import class_of

_MOST_NAMED = 4  # places, in a message


def merge_options(
    config: Config, options: Mapping[str, Any], texts: Mapping[str, str]
) -> dict[str, Any]:
    """Lays values over a config, a text where the config wants one.

    Args:
        config: Changed in place.
        options: Values by dotted names.
        texts: The same as they were written: ``1.10`` is a number, but not
            where a text is meant.

    Returns:
        What was laid over it.

    Raises:
        ValueError: If a name is none that a run takes notice of.
    """
    register_all_modules()
    for name in options:
        _check_name(name, config)
    chosen = {
        name: texts[name] if _means_text(name, value, config) else value
        for name, value in options.items()
    }
    config.merge_from_dict(chosen)
    return chosen


def _check_name(name: str, config: Config) -> None:
    """Refuses a name that has no effect, with where it may belong."""
    top, _, below = name.partition('.')
    tops = top_settings()
    known = {
        place: value
        for place, value in _places(config.to_dict())
        if _is_set(place)
    }
    if top in tops:
        part = below.partition('.')[0]
        # of the other parts their classes say it
        if top == 'env_cfg' and part not in _ENVIRONMENT:
            there = ', '.join(_ENVIRONMENT)
            raise UserError(
                f'`{name}` has no effect: `env_cfg` has {there}.'
                f'{_meant(part, _ENVIRONMENT, "env_cfg.")}'
            )
        return
    if top in config:
        value = config[top]
        used = [
            place
            for place, inner in known.items()
            if inner == value or (isinstance(inner, list) and value in inner)
        ]
        places = ', '.join(used[:_MOST_NAMED])
        raise UserError(
            f'`{name}` has no effect: it is a name inside the config file, '
            'which has been read by now. Set what it stands for'
            f'{places and ": "}{places}, or change the file.'
        )
    names = {*known, *tops, *_of_classes(config)}
    same = sorted(place for place in names if place.rsplit('.')[-1] == name)
    if not same:
        leaves = {place.rpartition('.')[2]: place for place in sorted(names)}
        near = difflib.get_close_matches(name, [*names, *leaves], 2, 0.7)
        same = [leaves.get(word, word) for word in near]
    same = list(dict.fromkeys(same))[:_MOST_NAMED]
    meant = (
        f'Did you mean {" or ".join(same)}?'
        if same
        else (
            f'At its top a config has {", ".join(sorted(tops & {*config}))}.'
        )
    )
    raise UserError(
        f'`{name}` has no effect: no part of a run reads it. {meant}'
    )


_ENVIRONMENT = ('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit')


def _meant(name: str, known: Any, before: str) -> str:
    """The nearest name, as a question."""
    near = difflib.get_close_matches(name, known, 1)
    return f' Did you mean {before}{near[0]}?' if near else ''


def _is_set(place: str) -> bool:
    """Whether a place is one of the run, and no name inside the file."""
    return place.partition('.')[0] in top_settings()


def _places(values: Any, before: str = '') -> Iterator[tuple[str, Any]]:
    """The dotted names of nested values, and the values."""
    if isinstance(values, Mapping):
        pairs: Any = values.items()
    elif isinstance(values, list | tuple):
        pairs = enumerate(values)
    else:
        return
    for key, value in pairs:
        yield f'{before}{key}', value
        yield from _places(value, f'{before}{key}.')


def _registries() -> Iterator[Registry]:
    """All of ours, which know MMEngine's too."""
    for each in vars(registry).values():
        if isinstance(each, Registry) and each.scope == registry.SCOPE:
            yield each


def _arguments_at(part: Any) -> dict[str, Argument]:
    """What the class of a part of a config takes; nothing where it is none."""
    for each in _registries():
        try:
            kind = class_of(part, each)
        except UserError:
            continue
        if kind is not None:
            return arguments_of(kind, of_this_run=True)
    return {}


def _of_classes(config: Config) -> Iterator[str]:
    """What model, frozen model and dataset take, by dotted names."""
    for place in ('model', 'model.sd', 'train_dataloader.dataset'):
        part: Any = config
        for key in place.split('.'):
            part = part.get(key) or {}
        yield from (f'{place}.{name}' for name in _arguments_at(part))


def _means_text(name: str, value: Any, config: Config) -> bool:
    """Whether a number, or True, is the text that it was written as."""
    if not isinstance(value, bool | int | float):
        return False
    part: Any = config.to_dict()
    *path, last = name.split('.')
    for key in path:
        if isinstance(part, list | tuple) and key.isdigit():
            part = part[int(key)] if int(key) < len(part) else None
        elif isinstance(part, Mapping):
            part = part.get(key)
        else:
            return False
    argument = _arguments_at(part).get(last) if path else None
    if argument is not None:
        wanted = argument.annotation
        return fits('', wanted) and not fits(value, wanted)
    if name in ('work_dir', 'experiment_name'):
        return True
    return isinstance(part, Mapping) and isinstance(part.get(last), str)
