"""Owners of the learned tensors; they see tensors, never the frozen model."""

from mmhiper.models.embeddings.identity import Identity
from mmhiper.models.embeddings.tail import TailEmbedding
from mmhiper.models.embeddings.token import TokenEmbedding

__all__ = ['Identity', 'TailEmbedding', 'TokenEmbedding']
