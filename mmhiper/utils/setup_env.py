"""Registers the package's modules, as in the other OpenMMLab projects."""

from __future__ import annotations

import datetime
import importlib
import logging

from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmhiper.registry import SCOPE


def register_all_modules(init_default_scope: bool = True) -> None:
    """Imports every module that registers something.

    Args:
        init_default_scope: Whether to make ``mmhiper`` the default scope, so
            that its types need no prefix. A program of another project keeps
            its scope with False.
    """
    for name in ('datasets', 'engine', 'models'):
        importlib.import_module(f'{SCOPE}.{name}')
    if not init_default_scope:
        return
    current = DefaultScope.get_current_instance()
    if current is not None and current.scope_name == SCOPE:
        return
    if current is not None:
        print_log(
            f'The default scope changes from {current.scope_name!r} to '
            f'{SCOPE!r}; pass `init_default_scope=False` to keep it.',
            logger='current',
            level=logging.WARNING,
        )
    # instances are kept by name, so each needs a name of its own
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    DefaultScope.get_instance(f'{SCOPE}-{now}', scope_name=SCOPE)
