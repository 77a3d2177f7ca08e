"""DreamBench (arXiv 2208.12242), as it is published.

    prompts_and_classes.txt     subjects with their classes, and prompts
    SUBJECT/                    four to six pictures each

In a prompt the name of the subject, ``{0} {1}``, is its class here: an editor
with a word of its own puts that in its place.
"""

from __future__ import annotations

import re
from pathlib import Path

from mmhiper.datasets.textual_inversion import pictures_in
from mmhiper.evaluation.benches.case import (
    BenchCase,
    check_count,
    check_inside,
    check_text,
    own_name,
)
from mmhiper.utils.errors import FileError
from mmhiper.utils.text_files import lines_of, read_text

LIST = 'prompts_and_classes.txt'
LIVE = ('cat', 'dog')  # classes with prompts of their own
_SUBJECT = re.compile(r'([\w-]{1,80}),([\w -]{1,80})')
_PROMPT = re.compile(r"'([^']{1,500})'\.format\(unique_token, class_token\),?")
_TITLES = {'Object Prompts': 'object', 'Live Subject Prompts': 'live subject'}


def read_dreambench(root: Path) -> list[BenchCase]:
    """Reads the folder with ``prompts_and_classes.txt``.

    Args:
        root: The folder.

    Returns:
        Each subject with each of its prompts, 25 in what is published.

    Raises:
        FileNotFoundError: If there is no list, or no pictures of a subject.
        ValueError: If it is none of DreamBench.
    """
    path = root / LIST
    subjects, prompts = _read(path)
    taken: set[str] = set()
    cases: list[BenchCase] = []
    for subject, name in subjects:
        where = f'Subject {subject!r} of {str(path)!r}'
        folder = Path(check_inside(root, subject, where))
        pictures = tuple(pictures_in(folder, captions=False))
        kind = 'live subject' if name in LIVE else 'object'
        for number, prompt in enumerate(prompts[kind]):
            cases.append(
                BenchCase(
                    name=own_name(f'{subject}-{number:02d}', taken),
                    image=pictures[0],
                    source=f'a {name}',
                    target=_fill(prompt, name, where),
                    kind=kind,
                    subject=name,
                    pictures=pictures,
                )
            )
            check_count(cases, path)
    check_count(cases, path)
    return cases


def _read(path: Path) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    """Subjects with classes, and the prompts of both kinds."""
    text = read_text(path, 'the list of DreamBench')
    subjects = []
    prompts: dict[str, list[str]] = {kind: [] for kind in _TITLES.values()}
    kind = ''
    for line in map(str.strip, lines_of(text)):
        kind = _TITLES.get(line, kind)
        if found := _PROMPT.fullmatch(line):
            if kind:
                prompts[kind].append(found[1])
        elif not kind and (found := _SUBJECT.fullmatch(line)):
            subjects.append((found[1], found[2].strip()))
    subjects = subjects[1:]  # the titles of the columns
    if not subjects or not all(prompts.values()):
        raise FileError(
            f'{str(path)!r} is not the list of DreamBench: wanted lines '
            '"subject_name,class", and prompts of both kinds.'
        )
    return subjects, prompts


def _fill(prompt: str, name: str, where: str) -> str:
    """A prompt about a class. Nothing in it is formatted: it is data."""
    if '{1}' not in prompt:
        raise FileError(f'{where}: the prompt {prompt!r} has no {{1}}.')
    filled = prompt.replace('{0} ', '').replace('{1}', name)
    return check_text(filled, 'prompt', where)
