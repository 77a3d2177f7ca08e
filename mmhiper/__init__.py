"""Personalise one picture, then edit it by text, in the OpenMMLab way.

Importing this package is cheap and changes nothing outside it: diffusers and
transformers are imported when a backbone is loaded, and the default scope of
the importing project stays as it is.
"""

from mmhiper import registry  # noqa: F401  makes the scope findable
from mmhiper.version import __version__

__all__ = ['__version__']
