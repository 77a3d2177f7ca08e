"""Classes that configs name, and what to say of those that are not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import mmengine.registry
from mmengine.registry import Registry

from mmhiper import registry
from mmhiper.utils.errors import UserError

# 'AdamWW is not in the mmengine::optimizer registry. Please check ...'
_MESSAGE = re.compile(r'(\S+) is not in the \S+::(.+?) registry')


def class_of(entry: Any, kind: Registry) -> type | None:
    """The class that a part of a config is of.

    Args:
        entry: A dict with a ``type``, or anything.
        kind: Of the classes that it may be.

    Returns:
        None where it names none.

    Raises:
        ValueError: If there is no class of that name.
    """
    name = entry.get('type') if isinstance(entry, Mapping) else None
    if isinstance(name, type):
        return name
    if not isinstance(name, str):
        return None
    scope, _, bare = name.rpartition('.')
    if scope not in ('', registry.SCOPE, 'mmengine'):
        return None  # of another project, which is not imported yet
    kind.import_from_location()
    known = kind.get(bare) if bare in _names_of(kind.name) else None
    if known is None:
        raise UserError(_describe(kind.name, name))
    return known if isinstance(known, type) else None


def describe_unknown_type(message: str) -> str | None:
    """Names what is near to a type that there is not.

    Args:
        message: Of MMEngine's error.

    Returns:
        None if it says something else.
    """
    found = _MESSAGE.search(message)
    return None if found is None else _describe(found[2], found[1])


def _names_of(kind: str) -> list[str]:
    """All names in the registries of a kind, ours and MMEngine's."""
    return sorted(
        {
            each
            for module in (registry, mmengine.registry)
            for one in vars(module).values()
            if isinstance(one, Registry) and one.name == kind
            for each in one.module_dict
        }
    )


def _describe(kind: str, name: str) -> str:
    """Says that there is no such type, and what is near."""
    lower = {each.lower(): each for each in _names_of(kind)}
    bare = name.rpartition('.')[2].lower()
    near = difflib.get_close_matches(bare, lower, 3)
    if near:
        meant = f'Did you mean {" or ".join(lower[each] for each in near)}?'
    else:
        meant = f'There are {", ".join(lower.values())[:300] or "none"}.'
    return (
        f'There is no {kind} of the type {name!r}. {meant} One of your own '
        'needs `custom_imports` in a Python config.'
    )
