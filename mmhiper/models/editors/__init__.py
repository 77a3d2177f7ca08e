"""Editors: a frozen model, a learned embedding, a rule of conditioning."""

from mmhiper.models.editors.base import EmbeddingEditor
from mmhiper.models.editors.hiper import HiPer

__all__ = ['EmbeddingEditor', 'HiPer']
