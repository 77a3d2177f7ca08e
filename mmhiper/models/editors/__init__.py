"""Editors: a frozen model, a learned embedding, a rule of conditioning."""

from mmhiper.models.editors.base import EmbeddingEditor
from mmhiper.models.editors.hiper import HiPer
from mmhiper.models.editors.textual_inversion import TextualInversion

__all__ = ['EmbeddingEditor', 'HiPer', 'TextualInversion']
