"""What a module of a file format provides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmhiper.io.file_content import FileContent
from mmhiper.io.token_file import TokenFile, quoted
from mmhiper.utils.errors import UserError


@dataclass(frozen=True)
class TokenFormat:
    """A way to store learned words in a file.

    Args:
        name: What users call it.
        matches: Whether a file has this layout.
        read: Takes the words out of such a file.
        write: Lays words out as the entries of a file. Without it the format
            is only read.
        suffixes: Of the files that are written.
    """

    name: str
    matches: Callable[[FileContent], bool]
    read: Callable[[FileContent], TokenFile]
    write: Callable[[TokenFile], Mapping[str, Any]] | None = None
    suffixes: tuple[str, ...] = ()


def single(tokens: TokenFile, format: str) -> str:
    """The placeholder for a format that stores one word per file.

    Args:
        tokens: To be written.
        format: Name of the format.

    Returns:
        The only placeholder.

    Raises:
        ValueError: If there are several.
    """
    if len(tokens.placeholders) > 1:
        raise UserError(
            f'A file of the format {format!r} holds one word, but got '
            f'{quoted(tokens.placeholders)}. Take one of them (`only`), or '
            "use the format 'diffusers'."
        )
    return tokens.placeholders[0]


def refuse_second(tokens: TokenFile, format: str) -> None:
    """Refuses rows that a format has no place for.

    Args:
        tokens: To be written.
        format: Name of the format.

    Raises:
        ValueError: If there are rows for a second or third text encoder.
    """
    further = {**tokens.second, **tokens.third}
    if further:
        raise UserError(
            f'The format {format!r} has no place for rows of a second text '
            f'encoder, which {quoted(further)} has. Use the format '
            "'kohya'."
        )
