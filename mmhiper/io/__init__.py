"""Embedding files: reading and writing, one module per format family."""

from mmhiper.io.checkpoint import read_checkpoint
from mmhiper.io.export import read_export, write_export
from mmhiper.io.kohya_format import XL_NAMES
from mmhiper.io.merging import merge_token_files
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_files import (
    TOKEN_FORMATS,
    read_token_file,
    write_token_file,
)

__all__ = [
    'TOKEN_FORMATS',
    'XL_NAMES',
    'TokenFile',
    'merge_token_files',
    'read_checkpoint',
    'read_export',
    'read_token_file',
    'write_export',
    'write_token_file',
]
