"""Owners of the learned tensors; they see tensors, never the frozen model."""

from mmhiper.models.embeddings.host_buffer import register_host_buffer
from mmhiper.models.embeddings.null_text import NullTexts
from mmhiper.models.embeddings.tail import TailEmbedding
from mmhiper.models.embeddings.token import TokenEmbedding
from mmhiper.models.embeddings.value_mapper import ValueMappers

__all__ = [
    'NullTexts',
    'TailEmbedding',
    'TokenEmbedding',
    'ValueMappers',
    'register_host_buffer',
]
