"""This package's own exports of Textual Inversion: named as the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mmhiper.io.export import FORMAT as NAME
from mmhiper.io.export import document_of
from mmhiper.io.file_content import FileContent
from mmhiper.io.kohya_format import XL_NAMES
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
    first = {word: parts[0] for word, parts in words.items()}
    second = {w: parts[1] for w, parts in words.items() if len(parts) > 1}
    return TokenFile(first, FORMAT.name, second, record.facts())


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
        With one text encoder the rows by placeholder; with two ``clip_l`` and
        ``clip_g``, of several words each behind a word and a dot.
    """
    entries: dict[str, Tensor] = {}
    for word, parts in words.items():
        if len(parts) == 1:
            entries[word] = parts[0]
            continue
        start = '' if len(words) == 1 else f'{word}.'
        for name, rows in zip(XL_NAMES, parts, strict=True):
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
    if set(entries) == set(XL_NAMES):
        return {word: [entries[name] for name in XL_NAMES]}
    first, second = (f'.{name}' for name in XL_NAMES)
    words: dict[str, list[Tensor]] = {}
    for name, rows in entries.items():
        start = name.removesuffix(first)
        if start != name and start + second in entries:
            words[start] = [rows, entries[start + second]]
        elif name.removesuffix(second) + first not in entries:
            words[name] = [rows]
    return words


FORMAT = TokenFormat(NAME, matches, read)
