"""Personalise one picture, then edit it by text, in the OpenMMLab way.

Importing this package is cheap and changes nothing outside it: MMEngine finds
its registries by their module, diffusers and transformers are imported when a
backbone is loaded, and the default scope of the importing project stays as it
is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmhiper.version import __version__

if TYPE_CHECKING:
    from mmhiper import registry
    from mmhiper.models.pipelines import to_diffusers

__all__ = ['__version__', 'registry', 'to_diffusers']


def __getattr__(name: str) -> Any:
    """Imports what is of weight when it is first asked for."""
    if name == 'registry':
        return importlib.import_module('mmhiper.registry')
    if name == 'to_diffusers':
        from mmhiper.models.pipelines import to_diffusers

        return to_diffusers
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
