"""The frozen model, the learned embeddings and the editors made of both."""

from mmhiper.models.backbones import Backbone, StableDiffusion
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.data_preprocessor import ImagePreprocessor
from mmhiper.models.editors import (
    DDIMInversion,
    DirectInversion,
    Editor,
    EmbeddingEditor,
    ExtendedTextualInversion,
    HiPer,
    NegativePromptInversion,
    NullTextInversion,
    ProSpect,
    StyleDiffusion,
    TextualInversion,
)
from mmhiper.models.embeddings import TailEmbedding, TokenEmbedding
from mmhiper.models.sampling import guided, run_scheduler

__all__ = [
    'Backbone',
    'Conditioning',
    'DDIMInversion',
    'DirectInversion',
    'Editor',
    'EmbeddingEditor',
    'ExtendedTextualInversion',
    'HiPer',
    'ImagePreprocessor',
    'NegativePromptInversion',
    'NullTextInversion',
    'ProSpect',
    'StableDiffusion',
    'StyleDiffusion',
    'TailEmbedding',
    'TextualInversion',
    'TokenEmbedding',
    'guided',
    'run_scheduler',
]
