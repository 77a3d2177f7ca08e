"""Editors: a frozen model, a learned embedding, a rule of conditioning."""

from mmhiper.models.editors.base import Editor
from mmhiper.models.editors.ddim_inversion import (
    DDIMInversion,
    NegativePromptInversion,
)
from mmhiper.models.editors.denoising import EmbeddingEditor
from mmhiper.models.editors.direct_inversion import DirectInversion
from mmhiper.models.editors.extended_textual_inversion import (
    ExtendedTextualInversion,
)
from mmhiper.models.editors.hiper import HiPer
from mmhiper.models.editors.null_text import NullTextInversion
from mmhiper.models.editors.prospect import ProSpect
from mmhiper.models.editors.style_diffusion import StyleDiffusion
from mmhiper.models.editors.textual_inversion import TextualInversion

__all__ = [
    'DDIMInversion',
    'DirectInversion',
    'Editor',
    'EmbeddingEditor',
    'ExtendedTextualInversion',
    'HiPer',
    'NegativePromptInversion',
    'NullTextInversion',
    'ProSpect',
    'StyleDiffusion',
    'TextualInversion',
]
