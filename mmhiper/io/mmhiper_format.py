"""This package's own exports of Textual Inversion: named as the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mmhiper.io.export import FORMAT as NAME
from mmhiper.io.export import document_of
from mmhiper.io.file_content import FileContent
from mmhiper.io.kohya_format import ENCODER_NAMES
from mmhiper.io.modelspec import kept, with_fields
from mmhiper.io.record import Record, read_record
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_format import TokenFormat
from mmhiper.utils.errors import FileError

_EDITOR = 'TextualInversion'


def matches(content: FileContent) -> bool:
    """Whether this package wrote a file.

    Returns:
        True for the exports of every editor.
    """
    return content.metadata.get('format') == NAME


def read(content: FileContent) -> TokenFile:
    """Takes the words out of an export.

    Returns:
        With what the embedding belongs to as metadata.

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
    words = words_of(content.entries, _only_word(record))
    first, second, third = (
        {word: parts[i] for word, parts in words.items() if len(parts) > i}
        for i in range(len(ENCODER_NAMES))
    )
    metadata = with_fields(record.facts(), kept(content.metadata))
    return TokenFile(first, FORMAT.name, second, metadata, third)


def _only_word(record: Record) -> str:
    """What a single word is called, which ``clip_l`` and ``clip_g`` do not."""
    word = (record.arguments or {}).get('placeholder_token')
    if isinstance(word, list) and len(word) == 1:
        (word,) = word
    return word if isinstance(word, str) else record.path.stem


def entries_of(words: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """Names the rows of words, as others read them where there is a way.

    Args:
        words: (n, D) per text encoder, by placeholder.

    Returns:
        With one text encoder the rows by placeholder; with several ``clip_l``,
        ``clip_g`` and ``t5xxl``, of several words each behind a word and a
        dot.
    """
    entries: dict[str, Tensor] = {}
    for word, parts in words.items():
        if len(parts) == 1:
            entries[word] = parts[0]
            continue
        start = '' if len(words) == 1 else f'{word}.'
        for name, rows in zip(ENCODER_NAMES, parts, strict=False):
            entries[f'{start}{name}'] = rows
    return entries


def words_of(
    entries: Mapping[str, Tensor], word: str
) -> dict[str, list[Tensor]]:
    """The inverse of :func:`entries_of`.

    Args:
        entries: Rows by name.
        word: The placeholder, where it is a single one that the names do not
            tell.

    Returns:
        (n, D) per text encoder, by placeholder.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, rows in entries.items():
        start, _, last = name.rpartition('.')
        if last not in ENCODER_NAMES:  # of one text encoder
            start, last = name, ENCODER_NAMES[0]
        found.setdefault(start or word, {})[last] = rows
    return {
        start: [parts[name] for name in ENCODER_NAMES if name in parts]
        for start, parts in found.items()
    }


FORMAT = TokenFormat(NAME, matches, read)
