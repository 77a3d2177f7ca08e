"""Measures of what an editor has learned."""

from mmhiper.evaluation.clip_features import ClipFeatures
from mmhiper.evaluation.learned import compare_with_plain

__all__ = ['ClipFeatures', 'compare_with_plain']
