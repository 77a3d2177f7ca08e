"""The frozen model, the learned embeddings and the editors made of both."""

from mmhiper.models.backbones import Backbone, StableDiffusion
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.data_preprocessor import ImagePreprocessor
from mmhiper.models.editors import (
    DDIMInversion,
    Editor,
    EmbeddingEditor,
    HiPer,
    NegativePromptInversion,
    NullTextInversion,
    StyleDiffusion,
    TextualInversion,
)
from mmhiper.models.embeddings import TailEmbedding, TokenEmbedding
from mmhiper.models.sampling import guided, run_scheduler

__all__ = [
    'Backbone',
    'Conditioning',
    'DDIMInversion',
    'Editor',
    'EmbeddingEditor',
    'HiPer',
    'ImagePreprocessor',
    'NegativePromptInversion',
    'NullTextInversion',
    'StableDiffusion',
    'StyleDiffusion',
    'TailEmbedding',
    'TextualInversion',
    'TokenEmbedding',
    'guided',
    'run_scheduler',
]
