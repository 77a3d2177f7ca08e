"""Checkpoints of MMagic's Textual Inversion: rows in a whole model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_format import TokenFormat

# The placeholder is the rest of the key, whatever characters it has.
_KEY = re.compile(
    r'(?:^|\.)token_embedding\.trainable_embeddings\.(.+)', re.DOTALL
)


def _rows(content: FileContent) -> dict[str, Any]:
    state = content.entries.get('state_dict', content.entries)
    if not isinstance(state, Mapping):
        return {}
    return {
        match[1]: tensor
        for key, tensor in state.items()
        if isinstance(key, str) and (match := _KEY.search(key))
    }


def matches(content: FileContent) -> bool:
    """Whether a file has the keys of trainable rows.

    Args:
        content: The file, with them under ``state_dict`` or at the top.
    """
    return bool(_rows(content))


def read(content: FileContent) -> TokenFile:
    """Takes the words out of a checkpoint.

    Returns:
        With the step, where the checkpoint has it.
    """
    rows: dict[str, Tensor] = _rows(content)
    meta = content.entries.get('meta')
    step = meta.get('iter') if isinstance(meta, Mapping) else None
    metadata = {'step': str(step)} if isinstance(step, int) else {}
    return TokenFile(rows, FORMAT.name, metadata=metadata)


FORMAT = TokenFormat('mmagic', matches, read)
