"""Many embedding files into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from mmhiper.io.diffusers_format import FORMAT
from mmhiper.io.token_file import TokenFile
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import same_word


def merge_token_files(
    files: Mapping[str, TokenFile],
    renames: Mapping[tuple[str, str], str] | None = None,
    ask: Callable[[str, str, str], str] | None = None,
) -> TokenFile:
    """Merges files, with a placeholder of its own for each word.

    Two words clash if their placeholders are equal but for capitals, or if
    one contains the other: a prompt with the longer one would have both.

    Args:
        files: By path, in the order of the result.
        renames: Another placeholder by the path of a file and the placeholder
            in it.
        ask: Gets path and placeholder of a word that clashes, and with what;
            returns another placeholder for it. Without it a clash is an error.

    Returns:
        All words, without metadata, which differs among files.

    Raises:
        ValueError: If words clash, or the files belong to different text
            encoders.
    """
    _check_widths(files)
    names = dict(renames or {})
    owners: dict[str, str] = {}
    tables: tuple[dict[str, Tensor], ...] = ({}, {}, {})
    for path, tokens in files.items():
        for old in tokens.placeholders:
            new = names.get((path, old), old)
            while problem := _clash(new, owners):
                if ask is None:
                    raise UserError(
                        f'{old!r} of {path!r}: {problem} Give it another '
                        'placeholder (`renames`).'
                    )
                new = ask(path, old, problem).strip()
            owners[new] = path
            for merged, rows in zip(tables, tokens.tables, strict=True):
                if old in rows:
                    merged[new] = rows[old]
    first, second, third = tables
    return TokenFile(first, FORMAT.name, second, third=third)


def _check_widths(files: Mapping[str, TokenFile]) -> None:
    if len({tokens.widths for tokens in files.values()}) > 1:
        widths = ', '.join(
            f'{path!r}: {tokens.width} ({tokens.family})'
            for path, tokens in files.items()
        )
        raise UserError(
            'All files must belong to text encoders of one width, but got '
            f'{widths}.'
        )


def _clash(placeholder: str, owners: Mapping[str, str]) -> str | None:
    """Why a placeholder cannot be used beside those there are, if so."""
    if not placeholder:
        return 'a placeholder must not be empty.'
    wanted = same_word(placeholder)
    for other, path in owners.items():
        if wanted == same_word(other):
            capitals = (
                ''
                if placeholder == other
                else (f', {other!r}: capitals do not matter in a prompt')
            )
            return (
                f'{placeholder!r} is already the word of {path!r}{capitals}.'
            )
        if wanted in same_word(other) or same_word(other) in wanted:
            longer, shorter = sorted((placeholder, other), key=len)[::-1]
            return (
                f'{placeholder!r} cannot stand beside {other!r} of {path!r}, '
                f'as {longer!r} contains {shorter!r}.'
            )
    return None
