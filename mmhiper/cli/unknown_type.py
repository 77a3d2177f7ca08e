"""What to say of a ``type`` in a config that no registry has."""

from __future__ import annotations

import difflib
import re

import mmengine.registry
from mmengine.registry import Registry

from mmhiper import registry

# 'AdamWW is not in the mmengine::optimizer registry. Please check ...'
_MESSAGE = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')


def describe_unknown_type(message: str) -> str | None:
    """Names what is near to a type that there is not.

    Args:
        message (str): Of MMEngine's error.

    Returns:
        str, optional: None if it says something else.
    """
    found = _MESSAGE.search(message)
    if found is None:
        return None
    name, _, kind = found.groups()
    known = sorted(
        {
            each
            for module in (registry, mmengine.registry)
            for one in vars(module).values()
            if isinstance(one, Registry) and one.name == kind
            for each in one.module_dict
        }
    )
    bare = name.rpartition('.')[2]
    lower = {each.lower(): each for each in known}
    near = [
        lower[each]
        for each in difflib.get_close_matches(bare.lower(), lower, 3)
    ]
    if near:
        meant = f'Did you mean {" or ".join(near)}?'
    else:
        meant = f'There are {", ".join(known)[:300] or "none"}.'
    return (
        f'There is no {kind} of the type {name!r}. {meant} One of your own '
        'needs `custom_imports` in a Python config.'
    )
