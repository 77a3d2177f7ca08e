"""Files of the original Textual Inversion: rows and ids by placeholder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile
from mmhiper.io.token_format import TokenFormat, refuse_second
from mmhiper.utils.errors import UserError

# Of the latent diffusion model that the original was published with.
_WIDTH_OF_BERT = 1280


def matches(content: FileContent) -> bool:
    """Whether a file has rows under ``string_to_param``.

    Returns:
        True for files of A1111 too, which are told apart before.
    """
    return isinstance(content.entries.get('string_to_param'), Mapping)


def read(content: FileContent) -> TokenFile:
    """Takes the words out of a file.

    Returns:
        Often with the placeholder ``*``, a word of the vocabulary, which has
        to be renamed before other programs take it.
    """
    return TokenFile(content.entries['string_to_param'], FORMAT.name)


def write(tokens: TokenFile) -> dict[str, Any]:
    """Lays words out as the entries of a file.

    The original finds a word by the id of the one token of the vocabulary
    that it is.

    Returns:
        ``string_to_token`` and ``string_to_param``.

    Raises:
        ValueError: If a placeholder's id is not known, or there are rows for
            a second text encoder.
    """
    refuse_second(tokens, FORMAT.name)
    return dict(
        string_to_token={
            word: token_id(word, rows.shape[1] == _WIDTH_OF_BERT)
            for word, rows in tokens.embeddings.items()
        },
        string_to_param=dict(tokens.embeddings),
    )


def token_id(placeholder: str, bert: bool = False) -> int:
    """The id of a character in CLIP's vocabulary, or in BERT's.

    Args:
        placeholder: A single character, such as ``*``.

    Returns:
        Where the vocabulary has it as a word of its own.

    Raises:
        ValueError: If it is more than a character, or one without an id of
            its own (capitals are read as small letters).
    """
    if (
        len(placeholder) != 1
        or not '!' <= placeholder <= '~'
        or (placeholder.isupper())
    ):
        raise UserError(
            "The format 'original' stores the id of a placeholder, which "
            "must be one character of the vocabulary such as '*' or '@', but "
            f'got {placeholder!r}. Choose another placeholder, or the format '
            "'a1111'."
        )
    if bert:
        # printable characters from 999 on, but for capitals
        return 999 + ord(placeholder) - ord('!') - 26 * (placeholder > 'Z')
    # The vocabulary begins with the bytes, first the printable ones from '!'
    # on, then has all 256 again as words that end there.
    return 256 + ord(placeholder) - ord('!')


FORMAT = TokenFormat('original', matches, read, write, ('.pt',))
