"""PIE-Bench (arXiv 2310.01506), as it is published.

    mapping_file.json       by key: image_path, original_prompt,
                            editing_prompt, editing_instruction,
                            editing_type_id, blended_word, mask
    annotation_images/      the pictures, 512 x 512

Keys that are not its own, all optional: ``goal_path`` (a picture of the right
answer, from the folder of the list), ``edit_options`` (of prompt-to-prompt),
``asked`` (what is to be seen in the edit) and ``subject``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmhiper.evaluation.benches.case import (
    BenchCase,
    Blend,
    blend_of,
    check_count,
    check_inside,
    check_options,
    check_runs,
    check_text,
    own_name,
    read_list,
)
from mmhiper.utils.errors import FileError

LIST = 'mapping_file.json'
IMAGES = 'annotation_images'
TYPES = (
    'random',
    'change object',
    'add object',
    'delete object',
    'change content',
    'change pose',
    'change color',
    'change material',
    'change background',
    'change style',
)
# Of the published rows with prompt-to-prompt; the word of the edit counts
# twice there.
PUBLISHED = dict(edit_type='refinement', tau_c=0.4, tau_s=0.6)
EMPHASIS = 2.0


def read_pie_bench(root: Path) -> list[BenchCase]:
    """Reads the folder with ``mapping_file.json``.

    Args:
        root: The folder.

    Returns:
        In the order of the list.

    Raises:
        FileNotFoundError: If there is no list.
        ValueError: If it is none of PIE-Bench, or a value is wrong.
    """
    path = root / LIST
    rows = read_list(path, 'a list of PIE-Bench')
    if not isinstance(rows, dict):
        raise FileError(
            f'{str(path)!r} must have cases by their keys, but has a '
            f'{type(rows).__name__}.'
        )
    check_count(rows, path)
    taken: set[str] = set()
    cases = []
    for key, row in rows.items():
        where = f'Case {key[:40]!r} of {str(path)!r}'
        if not isinstance(row, dict):
            raise FileError(f'{where} must have names and values.')
        cases.append(_case(root, own_name(key, taken), row, where))
    return cases


def _case(root: Path, name: str, row: dict[str, Any], where: str) -> BenchCase:
    """A row, checked."""
    source, target = (
        check_text(row.get(key), key, where)
        for key in ('original_prompt', 'editing_prompt')
    )
    words = row.get('blended_word', '')
    if not isinstance(words, str) or not words.isprintable():
        raise FileError(
            f'{where}: `blended_word` must be two words, but got '
            f'{str(words)[:80]!r}.'
        )
    # of both texts, with a blank between; the first two count
    parts = words.split()[:2]
    goal = row.get('goal_path')
    image = check_inside(root / IMAGES, row.get('image_path'), where)
    subject = row.get('subject', '')
    return make_case(
        where,
        name=name,
        image=image,
        source=source,
        target=target,
        kind=kind_of(row.get('editing_type_id'), where),
        words=(parts[:1], parts[-1:]),
        mask=check_runs(row.get('mask'), where),
        goal=None if goal is None else check_inside(root, goal, where),
        asked=_asked(row.get('asked', {}), where),
        subject=check_text(subject, 'subject', where) if subject != '' else '',
        edit_options=row.get('edit_options', {}),
    )


def make_case(
    where: str,
    words: tuple[list[str], list[str]],
    edit_options: Any,
    **values: Any,
) -> BenchCase:
    """A case under the settings of the published rows.

    Args:
        where: In a file, for messages.
        words: Whose places change, of source and target.
        edit_options: In place of the published ones.
        **values: The other attributes of a case.
    """
    source, target = values['source'], values['target']
    blend: Blend | None = blend_of(*words, source, target)
    options: dict[str, Any] = dict(PUBLISHED)
    if blend is not None:
        options['blend_words'] = [list(side) for side in blend]
        options['reweight'] = dict.fromkeys(blend[1], EMPHASIS)
    options |= check_options(edit_options, where)
    note = ''
    if blend is None and any(words):
        named = ' '.join(word for side in words for word in side)
        note = f'its texts do not have the words {named[:80]!r}'
    return BenchCase(blend=blend, options=options, note=note, **values)


def kind_of(number: Any, where: str) -> str:
    """The sort of an edit, by the number that PIE-Bench has for it."""
    text = str(number) if type(number) in (str, int) else ''
    if text not in map(str, range(len(TYPES))):
        raise FileError(
            f'{where}: `editing_type_id` must be in [0, {len(TYPES) - 1}], '
            f'but got {str(number)[:80]!r}.'
        )
    return f'{text} {TYPES[int(text)]}'


def _asked(asked: Any, where: str) -> dict[str, str]:
    """What is to be seen in an edit."""
    if not isinstance(asked, dict) or not all(
        isinstance(answer, str) for answer in asked.values()
    ):
        raise FileError(
            f'{where}: `asked` must have an answer for each question, but '
            f'got {str(asked)[:80]!r}.'
        )
    return asked
