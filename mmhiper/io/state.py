"""What an editor can load, whoever wrote it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor

from mmhiper.io.checkpoint import read_checkpoint
from mmhiper.io.known_formats import is_foreign, read_token_file
from mmhiper.io.kohya_format import ENCODER_NAMES


def read_state(path: str | Path) -> OrderedDict[str, Tensor]:
    """Reads a checkpoint or an export, or words from elsewhere.

    Args:
        path: What :func:`read_checkpoint` reads, or :func:`read_token_file`.

    Returns:
        As of :func:`read_checkpoint`; of words from elsewhere the rows by
        placeholder, which say no editor or backbone. With several
        text encoders names end in ``.clip_l`` and so on.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these.
    """
    if not is_foreign(path):
        return read_checkpoint(path)
    tokens = read_token_file(path)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for word in tokens.placeholders:
        parts = [
            (f'{word}.{name}', rows[word])
            for name, rows in zip(ENCODER_NAMES, tokens.tables, strict=True)
            if word in rows
        ]
        if len(parts) == 1:
            parts = [(word, parts[0][1])]
        state.update(parts)
    return state
