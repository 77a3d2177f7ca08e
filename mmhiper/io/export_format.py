"""This package's own exports of Textual Inversion: named as the words."""

from __future__ import annotations

from mmhiper.io.export import FORMAT as NAME
from mmhiper.io.export import document_of
from mmhiper.io.file_content import FileContent
from mmhiper.io.kohya_format import XL_NAMES
from mmhiper.io.record import read_record
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_format import TokenFormat
from mmhiper.utils.errors import FileError

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
    path = content.path
    record = read_record(document_of(content.metadata, path), path)
    if record.editor != _EDITOR:
        raise FileError(
            f'Wanted words that {_EDITOR!r} learned, but the editor of this '
            f'export is {record.editor!r}, whose embedding is no word. '
            f'load_editor({str(path)!r}) loads it.'
        )
    entries, metadata = content.entries, record.facts()
    if set(entries) != set(XL_NAMES):
        return TokenFile(entries, FORMAT.name, metadata=metadata)
    word = metadata.get('placeholder_token', path.stem)
    first, second = ({word: entries[name]} for name in XL_NAMES)
    return TokenFile(first, FORMAT.name, second, metadata)


FORMAT = TokenFormat(NAME, matches, read)
