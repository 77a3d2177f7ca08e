"""Inversions that learn nothing: the baselines of StyleDiffusion."""

from __future__ import annotations

from typing_extensions import override

from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.inversion import InversionEditor
from mmhiper.registry import MODELS


@MODELS.register_module()
class DDIMInversion(InversionEditor):
    """Plain DDIM inversion (arXiv 2010.02502) and prompt-to-prompt.

    Guidance at editing amplifies the errors of the inversion, so the picture
    is met roughly. There is nothing to train: call :meth:`invert`.
    """


@MODELS.register_module()
class NegativePromptInversion(InversionEditor):
    """Negative-prompt inversion (arXiv 2305.16807).

    The source text in the place of the empty one makes guidance vanish in
    the source branch, which then follows the inversion back, with nothing
    to train: call :meth:`invert`.
    """

    has_own_negative = True

    @override
    def negative(self, text: Conditioning, step: int) -> Conditioning:
        """The source text."""
        return Conditioning(self.source).repeat_interleave(len(text))
