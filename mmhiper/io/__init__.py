"""Embedding files: reading and writing, one module per format family."""

from mmhiper.io.checkpoint import read_checkpoint
from mmhiper.io.export import read_export, write_export

__all__ = ['read_checkpoint', 'read_export', 'write_export']
