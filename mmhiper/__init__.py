"""Personalise one picture, then edit it by text, in the OpenMMLab way.

Importing this package is cheap and changes nothing outside it: diffusers and
transformers are imported when a backbone is loaded, and the default scope of
the importing project stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmhiper import registry  # noqa: F401  makes the scope findable
from mmhiper.version import __version__

if TYPE_CHECKING:
    from mmhiper.models.pipelines import to_diffusers

__all__ = ['__version__', 'to_diffusers']


def __getattr__(name: str) -> Any:
    """Imports what needs the models when it is first asked for."""
    if name == 'to_diffusers':
        from mmhiper.models.pipelines import to_diffusers

        return to_diffusers
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
