"""Files of diffusers: a tensor (n, D) for each placeholder.

``load_textual_inversion`` takes one word per file; of a file with several it
takes them from a list of mappings, ``[{word: rows} for ...]``. It calls the
further vectors of ``<word>`` ``<word>_1``, ``<word>_2`` and so on, and puts
them after it wherever a prompt has ``<word>``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_format import TokenFormat, refuse_second

# No prompt has room for more than this: 77 less the two marks.
_MAX_VECTORS = 75


def matches(content: FileContent) -> bool:
    """Whether a file holds nothing but a few rows of one width per name.

    Returns:
        False for adapters and whole models.
    """
    tensors = list(content.entries.values())
    return (
        bool(tensors)
        and all(
            isinstance(tensor, Tensor)
            and tensor.is_floating_point()
            and tensor.squeeze(0).ndim in (1, 2)  # also (1, n, D)
            and tensor.shape[-1] == tensors[0].shape[-1]
            and tensor.shape[:-1].numel() <= _MAX_VECTORS
            for tensor in tensors
        )
    )


def read(content: FileContent) -> TokenFile:
    """Takes the words out of a file.

    Returns:
        With its metadata.
    """
    metadata = dict(content.metadata)
    # 'pt' in every file, for other readers
    metadata.pop('format', None)
    return TokenFile(content.entries, FORMAT.name, metadata=metadata)


def write(tokens: TokenFile) -> Mapping[str, Tensor]:
    """Lays words out as the entries of a file.

    Returns:
        (n, D) by placeholder.

    Raises:
        ValueError: If there are rows for a second text encoder.
    """
    refuse_second(tokens, FORMAT.name)
    return tokens.embeddings


FORMAT = TokenFormat(
    'diffusers', matches, read, write, ('.safetensors', '.bin')
)
