"""Embedding files: reading and writing, one module per format family."""

from mmhiper.io.checkpoint import read_checkpoint, read_learned
from mmhiper.io.export import read_export, write_export
from mmhiper.io.known_formats import (
    TOKEN_FORMATS,
    read_token_file,
    write_token_file,
)
from mmhiper.io.kohya_format import ENCODER_NAMES
from mmhiper.io.merging import merge_token_files
from mmhiper.io.picture_records import (
    PictureFolder,
    read_picture_record,
    write_picture,
)
from mmhiper.io.resumable import check_resumable
from mmhiper.io.state import read_state
from mmhiper.io.token_file import TokenFile

__all__ = [
    'ENCODER_NAMES',
    'TOKEN_FORMATS',
    'PictureFolder',
    'TokenFile',
    'check_resumable',
    'merge_token_files',
    'read_checkpoint',
    'read_export',
    'read_learned',
    'read_picture_record',
    'read_state',
    'read_token_file',
    'write_export',
    'write_picture',
    'write_token_file',
]
