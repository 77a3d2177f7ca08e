"""This package's own exports of Textual Inversion: named as the words."""

from __future__ import annotations

from mmhiper.io.export import FORMAT as NAME
from mmhiper.io.file_content import FileContent
from mmhiper.io.kohya_format import XL_NAMES
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_format import TokenFormat
from mmhiper.utils.errors import UserError

_EDITOR = 'TextualInversion'


def matches(content: FileContent) -> bool:
    """Whether this package wrote a file.

    Args:
        content (FileContent): The file.

    Returns:
        bool: True for the exports of every editor.
    """
    return content.metadata.get('format') == NAME


def read(content: FileContent) -> TokenFile:
    """Takes the words out of an export.

    Args:
        content (FileContent): The file.

    Returns:
        TokenFile: With what the embedding belongs to as metadata.

    Raises:
        ValueError: If another editor made it.
    """
    metadata = dict(content.metadata)
    metadata.pop('format')
    editor = metadata.get('editor')
    if editor != _EDITOR:
        raise UserError(
            f'Wanted words that {_EDITOR!r} learned, but the editor of this '
            f'export is {editor!r}, whose embedding is no word. '
            'load_editor(config, file) loads it.'
        )
    entries = content.entries
    if set(entries) != set(XL_NAMES):
        return TokenFile(entries, FORMAT.name, metadata=metadata)
    word = metadata.get('placeholder_token', '')
    first, second = ({word: entries[name]} for name in XL_NAMES)
    return TokenFile(first, FORMAT.name, second, metadata)


FORMAT = TokenFormat(NAME, matches, read)
