"""Files of kohya's scripts and OneTrainer: one word without a name.

``emb_params`` for models with one text encoder; ``clip_l`` and ``clip_g`` for
the two of SDXL, with ``t5xxl`` beside them for the three of Stable Diffusion
3. The word is called as the file.
"""

from __future__ import annotations

import re

from torch import Tensor

from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile, quoted
from mmhiper.io.token_format import TokenFormat, single
from mmhiper.utils.errors import UserError

# Of text encoders: the first two of Stable Diffusion XL, all three of 3.
ENCODER_NAMES = ('clip_l', 'clip_g', 't5xxl')
_CLIP = ENCODER_NAMES[:2]
_KEYS = ('emb_params', *_CLIP)
_T5 = re.compile(r't5(_?xxl)?(_out)?')


def matches(content: FileContent) -> bool:
    """Whether a file has a tensor under one of the known names."""
    return any(
        isinstance(value, Tensor)
        and (key in _KEYS or _T5.fullmatch(str(key)) is not None)
        for key, value in content.entries.items()
    )


def read(content: FileContent) -> TokenFile:
    """Takes the word out of a file.

    Returns:
        With the name of the file as the placeholder.

    Raises:
        ValueError: If there are rows for other text encoders, or such that
            act behind a text encoder.
    """
    entries = content.entries
    other = [key for key in entries if key not in _KEYS]
    third = None
    if set(entries) == {*_CLIP, *other} and other in (
        ['t5xxl'],
        ['t5_xxl'],
        ['t5'],
    ):
        third = entries[other.pop()]
    if any(_T5.fullmatch(str(key)) for key in other):
        raise UserError(
            "Wanted rows for a Stable Diffusion: 'emb_params', or 'clip_l' "
            f"and/or 'clip_g', but got {quoted(entries)}: a word of Flux or "
            'another model with the text encoder T5. Of those with it, '
            "Stable Diffusion 3 is known, whose words have 'clip_l', 'clip_g' "
            "and 't5xxl'."
        )
    if other or ('emb_params' in entries and 'clip_l' in entries):
        raise UserError(
            "Wanted rows for a Stable Diffusion: 'emb_params', or 'clip_l' "
            f"and/or 'clip_g', but got {quoted(entries)}."
        )
    word = content.path.stem
    first = entries.get(_CLIP[0], entries.get('emb_params'))
    second = entries.get(_CLIP[1])
    metadata = dict(content.metadata)
    metadata.pop('format', None)
    return TokenFile(
        {} if first is None else {word: first},
        FORMAT.name,
        {} if second is None else {word: second},
        metadata,
        {} if third is None else {word: third},
    )


def write(tokens: TokenFile) -> dict[str, Tensor]:
    """Lays a word out as the entries of a file.

    Args:
        tokens: With one word, whose placeholder is lost unless the file is
            called like it.

    Returns:
        (n, D) each.

    Raises:
        ValueError: If there are several words.
    """
    word = single(tokens, FORMAT.name)
    if not tokens.second:
        return {'emb_params': tokens.embeddings[word]}
    pairs = zip(ENCODER_NAMES, tokens.tables, strict=True)
    return {key: rows[word] for key, rows in pairs if word in rows}


FORMAT = TokenFormat('kohya', matches, read, write, ('.safetensors',))
