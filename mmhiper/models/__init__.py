"""The frozen model, the learned embeddings and the editors made of both."""

from mmhiper.models.conditioning import Conditioning
from mmhiper.models.data_preprocessor import ImagePreprocessor
from mmhiper.models.editors import EmbeddingEditor, HiPer, TextualInversion
from mmhiper.models.embeddings import TailEmbedding, TokenEmbedding
from mmhiper.models.sampling import guided, run_ddim
from mmhiper.models.stable_diffusion import StableDiffusion

__all__ = [
    'Conditioning',
    'EmbeddingEditor',
    'HiPer',
    'ImagePreprocessor',
    'StableDiffusion',
    'TailEmbedding',
    'TextualInversion',
    'TokenEmbedding',
    'guided',
    'run_ddim',
]
