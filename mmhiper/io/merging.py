"""Many embedding files into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mmhiper.io.diffusers_format import FORMAT
from mmhiper.io.token_file import TokenFile
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import same_word


def merge_token_files(
    files: Mapping[str, TokenFile],
    renames: Iterable[str] = (),
    ask: Callable[[str], str] | None = None,
) -> TokenFile:
    """Merges files, with a placeholder of its own for each word.

    Two words clash if their placeholders are equal but for capitals, or if
    one contains the other: a prompt with the longer one would have both.

    Args:
        files (Mapping[str, TokenFile]): By path, in the order of the result.
        renames (Iterable[str]): ``OLD=NEW`` for a word in all files that
            have it, ``FILE:OLD=NEW`` for that of one file, which comes
            first. All refer to the placeholders in the files.
        ask (Callable, optional): Gets a question that tells of a clash and
            returns another placeholder for the later word. Without it a
            clash is an error.

    Returns:
        TokenFile: All words, without metadata, which differs among files.

    Raises:
        ValueError: If words clash, a rename fits no word, or the files
            belong to different text encoders.
    """
    _check_widths(files)
    names = _read_renames(renames, files)
    owners: dict[str, str] = {}
    embeddings, second = {}, {}
    for path, tokens in files.items():
        for old in tokens.placeholders:
            new = names.get((path, old), old)
            while problem := _clash(new, owners):
                problem = f'{old!r} of {path!r}: {problem}'
                if ask is None:
                    raise UserError(
                        f'{problem} Give it another placeholder with '
                        f'--rename {f"{path}:{old}=NEW"!r}.'
                    )
                new = ask(f'{problem}\nNew placeholder: ').strip()
            owners[new] = path
            if old in tokens.embeddings:
                embeddings[new] = tokens.embeddings[old]
            if old in tokens.second:
                second[new] = tokens.second[old]
    return TokenFile(embeddings, FORMAT.name, second)


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


def _read_renames(
    renames: Iterable[str], files: Mapping[str, TokenFile]
) -> dict[tuple[str, str], str]:
    """New placeholders by path and old placeholder.

    Placeholders and paths may contain ':' and '=', so what is before them is
    found by what there is.
    """
    everywhere: dict[tuple[str, str], str] = {}
    in_one_file: dict[tuple[str, str], str] = {}
    words = [
        (path, old)
        for path, tokens in files.items()
        for old in tokens.placeholders
    ]
    for text in renames:
        found = False
        for path, old in words:
            for target, start in (
                (everywhere, f'{old}='),
                (in_one_file, f'{path}:{old}='),
            ):
                if text.startswith(start):
                    target[path, old] = text.removeprefix(start).strip()
                    found = True
        if not found:
            known = ', '.join(f'{path}:{old}' for path, old in words)
            raise UserError(
                '--rename must be OLD=NEW or FILE:OLD=NEW with a placeholder '
                f'that there is ({known}), but got {text!r}.'
            )
    return {**everywhere, **in_one_file}
