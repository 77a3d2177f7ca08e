"""Files of pivotal tuning: words of SDXL that were learned beside a LoRA.

``text_encoders_0`` and ``text_encoders_1`` have a row for each word. Nothing
in the file says what they are called; the scripts that write it, and the
model cards of their results, say ``<s0>``, ``<s1>`` and so on.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile, quoted
from mmhiper.io.token_format import TokenFormat
from mmhiper.utils.errors import UserError

_KEYS = ('text_encoders_0', 'text_encoders_1')


def matches(content: FileContent) -> bool:
    """Whether a file has rows by the numbers of text encoders."""
    return any(
        isinstance(key, str) and re.fullmatch(r'text_encoders_\d', key)
        for key in content.entries
    )


def read(content: FileContent) -> TokenFile:
    """Takes the words out of a file.

    Returns:
        A word for each row; or one word with all rows, where it was said what
        to call it.

    Raises:
        ValueError: If there are rows for other text encoders.
    """
    other = [key for key in content.entries if key not in _KEYS]
    if other:
        raise UserError(
            f'Wanted rows for a Stable Diffusion XL, {quoted(_KEYS)}, but '
            f'got {quoted(content.entries)}: a third text encoder is that of '
            'Stable Diffusion 3.'
        )
    first, second = (
        _words(content.entries.get(key), content.placeholder) for key in _KEYS
    )
    if first and second and len(first) != len(second):
        raise UserError(
            'There must be as many rows for both text encoders, but got '
            f'{len(first)} and {len(second)}.'
        )
    metadata = dict(content.metadata)
    metadata.pop('format', None)
    return TokenFile(first, FORMAT.name, second, metadata)


def _words(rows: Any, placeholder: str | None) -> dict[str, Any]:
    """Rows by word; what is no table of rows is left for the check of them."""
    if rows is None:
        return {}
    if isinstance(rows, Tensor) and rows.ndim == 3 and len(rows) == 1:
        rows = rows[0]
    if placeholder is not None or getattr(rows, 'ndim', 0) != 2:
        return {placeholder or '<s0>': rows}
    return {f'<s{number}>': row for number, row in enumerate(rows)}


FORMAT = TokenFormat('pivotal', matches, read)
