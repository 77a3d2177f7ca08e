"""A case of a bench, and what all benches check of their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mmhiper.models.edit_options import EditOptions
from mmhiper.models.prompt import Prompt
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.names import safe_name, same_place
from mmhiper.utils.reading import JSON_DAMAGE, check_file, reading

MASK_SIDE = 512  # pixels, of PIE-Bench
MOST_CASES = 100_000
MOST_LETTERS = 10_000  # of a text
_MOST_MEGABYTES = 64  # of a list of cases, masks included
_SHOWN = 80
_LONGEST = 1000  # letters of a message

# Words of the source text and of the target text.
Blend = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class BenchCase:
    """A picture, an edit of it, and what is known of the right answer.

    Attributes:
        name: Also a folder of its own among those of the bench.
        image: Path of the picture.
        source: What it shows; may be empty.
        target: What to make of it.
        kind: Which sort of edit that is.
        blend: Words whose place alone changes.
        options: Of prompt-to-prompt, see :class:`EditOptions`.
        mask: Where the edit may change the picture: starts and lengths of
            runs, line by line over 512 x 512. None if that is not known.
        goal: Path of the right answer.
        asked: What is to be seen in it, by question.
        subject: What is learned of the picture, in words of the source text.
        pictures: Paths of all pictures of the subject; none stands for
            ``image``.
        note: What of the bench could not be taken as it is.
    """

    name: str
    image: str
    source: str
    target: str
    kind: str
    blend: Blend | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mask: tuple[int, ...] | None = None
    goal: str | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    subject: str = ''
    pictures: tuple[str, ...] = ()
    note: str = ''


def decode_mask(runs: Sequence[int]) -> np.ndarray:
    """Draws a mask as PIE-Bench has it.

    Args:
        runs: Starts and lengths, see :class:`BenchCase`; what is beyond the
            last pixel does not count.

    Returns:
        (512, 512) bool; the border is always part of it, since annotations
        are not exact there.
    """
    flat = np.zeros(MASK_SIDE**2, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(MASK_SIDE, MASK_SIDE)
    mask[[0, -1], :] = True
    mask[:, [0, -1]] = True
    return mask


def check_runs(runs: Any, where: str) -> tuple[int, ...]:
    """Refuses a mask that is none.

    Args:
        runs: Of a file.
        where: In it, for the message.
    """
    area = MASK_SIDE**2
    sound = (
        isinstance(runs, list)
        and len(runs) % 2 == 0
        and len(runs) <= area
        and all(type(number) is int for number in runs)
        and all(0 <= start < area for start in runs[::2])
        and all(0 <= length <= area for length in runs[1::2])
    )
    if not sound:
        raise FileError(
            f'{where}: `mask` must be starts and lengths of runs over '
            f'{MASK_SIDE} x {MASK_SIDE} pixels, but got '
            f'{str(runs)[:_SHOWN]!r}.'
        )
    return tuple(runs)


def check_inside(root: Path, name: Any, where: str) -> str:
    """Refuses a path that leads out of the folder of a bench.

    Args:
        root: The folder that it starts from.
        name: Of a file.
        where: In it, for the message.

    Returns:
        The whole path; whether there is a file is another question.
    """
    if isinstance(name, str) and name.isprintable() and '\\' not in name:
        path = Path(name)
        outside = path.is_absolute() or '..' in path.parts or not path.parts
        if not outside and (
            (root / path).resolve().is_relative_to(root.resolve())
        ):
            return str(root / path)
    raise FileError(
        f'{where}: a picture must be named by its path in {str(root)!r}, but '
        f'got {str(name)[:_SHOWN]!r}.'
    )


def check_text(text: Any, name: str, where: str) -> str:
    """Refuses what is no text on one line.

    Args:
        text: Of a file.
        name: What it is called there.
        where: In it.

    Returns:
        Without the brackets that PIE-Bench puts around what changes, and
        without blanks around it.
    """
    if isinstance(text, str) and len(text) <= MOST_LETTERS:
        plain = text.replace('[', '').replace(']', '').strip()
        if plain and plain.isprintable():
            return plain
    raise FileError(
        f'{where}: `{name}` must be a text, but got {str(text)[:_SHOWN]!r}.'
    )


def check_options(options: Any, where: str) -> dict[str, Any]:
    """Refuses options of prompt-to-prompt that are none."""
    known = {each.name for each in fields(EditOptions)}
    if not isinstance(options, dict) or not known >= set(options):
        raise FileError(
            f'{where}: `edit_options` must have names of {sorted(known)}, '
            f'but got {str(options)[:_SHOWN]!r}.'
        )
    try:
        EditOptions(**options)
    except (UserError, TypeError) as error:
        # which quotes the value, whatever its length
        raise FileError(f'{where}: {str(error)[:_LONGEST]}') from error
    return options


def blend_of(
    old: Iterable[str], new: Iterable[str], source: str, target: str
) -> Blend | None:
    """The words whose place changes, as far as the texts have them.

    Args:
        old: Words of the source text.
        new: Words of the target text.
        source: Source text.
        target: Target text.

    Returns:
        None where one of the texts has none of its words.
    """
    found = (_in_text(old, source), _in_text(new, target))
    return found if all(found) else None


def _in_text(words: Iterable[str], text: str) -> tuple[str, ...]:
    """Those of some words that a text has."""
    prompt = Prompt.parse(text, lambda word: [0], len(text) + 3)
    found = []
    for word in words:
        try:
            prompt.positions(word)
        except UserError:
            continue
        found.append(word)
    return tuple(found)


def read_list(path: Path, what: str) -> Any:
    """Reads a list of cases, a JSON.

    Args:
        path: The file.
        what: What it should be, with its article.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no JSON, or larger than 64 MB.
    """
    path = check_file(path, what)
    if path.stat().st_size > _MOST_MEGABYTES * 1_000_000:
        raise FileError(
            f'{str(path)!r} is larger than {_MOST_MEGABYTES} MB, more than '
            f'{what} has. Is it another file?'
        )
    with reading(path, f'is not {what}', 'Get it again.', JSON_DAMAGE):
        return json.loads(path.read_bytes())


def check_count(rows: Any, path: Path) -> None:
    """Refuses a bench of no cases, or of more than anybody draws."""
    if not 0 < len(rows) <= MOST_CASES:
        raise FileError(
            f'{str(path)!r} must have 1 to {MOST_CASES:,} cases, but has '
            f'{len(rows):,}.'
        )


def own_name(text: str, taken: set[str]) -> str:
    """A name of a folder that no case before has.

    Args:
        text: What it is made of.
        taken: Names so far; the new one is added.
    """
    name, number = safe_name(text), 1
    while same_place(name) in taken:
        number += 1
        name = safe_name(f'{text[:100]}-{number}')
    taken.add(same_place(name))
    return name
