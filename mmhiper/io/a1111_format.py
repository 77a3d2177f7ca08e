"""Files of the A1111 web UI: one word with its name.

The web UI itself goes by the name of the file, diffusers by the name inside.
"""

from __future__ import annotations

from typing import Any

from mmhiper.io import original_format
from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile, quoted
from mmhiper.io.token_format import TokenFormat, refuse_second, single
from mmhiper.utils.errors import UserError

# What every word is called inside.
_KEY = '*'
_NOTES = ('step', 'sd_checkpoint', 'sd_checkpoint_name')


def matches(content: FileContent) -> bool:
    """Whether a file has rows as the original, and notes of the web UI.

    Returns:
        False for files of the original.
    """
    return original_format.matches(content) and any(
        key in content.entries for key in ('name', *_NOTES)
    )


def read(content: FileContent) -> TokenFile:
    """Takes the word out of a file.

    Returns:
        With the name inside as the placeholder, or that of the file where
        there is none.

    Raises:
        ValueError: If there is not exactly one word.
    """
    entries = content.entries
    rows = list(entries['string_to_param'].values())
    if len(rows) != 1:
        raise UserError(
            'A file of the A1111 web UI holds one word, but this one has '
            f'{len(rows)}: {quoted(entries["string_to_param"])}.'
        )
    metadata = {
        key: str(entries[key])
        for key in _NOTES
        if isinstance(entries.get(key), str | int)
    }
    name = entries.get('name')
    if not isinstance(name, str) or not name:
        name = content.path.stem
    return TokenFile({name: rows[0]}, FORMAT.name, metadata=metadata)


def write(tokens: TokenFile) -> dict[str, Any]:
    """Lays a word out as the entries of a file.

    Args:
        tokens: With one word.

    Returns:
        The rows as ``string_to_param['*']``, the placeholder as ``name``, and
        the notes, where the metadata has them.

    Raises:
        ValueError: If there are several words, or rows for a second text
            encoder.
    """
    refuse_second(tokens, FORMAT.name)
    name = single(tokens, FORMAT.name)
    step = tokens.metadata.get('step', '')
    return dict(
        string_to_token={_KEY: original_format.token_id(_KEY)},
        string_to_param={_KEY: tokens.embeddings[name]},
        name=name,
        step=int(step) if step.isdecimal() else None,
        sd_checkpoint=tokens.metadata.get('sd_checkpoint'),
        sd_checkpoint_name=tokens.metadata.get('sd_checkpoint_name'),
    )


FORMAT = TokenFormat('a1111', matches, read, write, ('.pt',))
