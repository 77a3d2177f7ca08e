"""TEdBench (arXiv 2210.09276), as it is published.

    input_list.json     a list of img_name, target_text
    originals/          the pictures

It does not say what a picture shows, which most editors need to know: that is
read from a caption beside the picture (``bird.txt`` beside ``bird.jpeg``), or
from ``source_text`` in the list.
"""

from __future__ import annotations

from pathlib import Path

from mmhiper.datasets.templates import find_caption
from mmhiper.evaluation.benches.case import (
    BenchCase,
    check_count,
    check_inside,
    check_text,
    own_name,
    read_list,
)
from mmhiper.utils.errors import FileError

LIST = 'input_list.json'
IMAGES = 'originals'


def read_tedbench(root: Path) -> list[BenchCase]:
    """Reads the folder with ``input_list.json``.

    Args:
        root: The folder.

    Returns:
        In the order of the list; the source text is empty where nobody has
        said it.

    Raises:
        FileNotFoundError: If there is no list.
        ValueError: If it is none of TEdBench, or a value is wrong.
    """
    path = root / LIST
    rows = read_list(path, 'a list of TEdBench')
    if not isinstance(rows, list):
        raise FileError(
            f'{str(path)!r} must be a list of cases, but is a '
            f'{type(rows).__name__}.'
        )
    check_count(rows, path)
    taken: set[str] = set()
    cases = []
    for number, row in enumerate(rows):
        where = f'Case {number} of {str(path)!r}'
        if not isinstance(row, dict):
            raise FileError(f'{where} must have names and values.')
        image = check_inside(root / IMAGES, row.get('img_name'), where)
        source = row.get('source_text', '')
        if source:
            source = check_text(source, 'source_text', where)
        else:
            source = (find_caption(image) or ('',))[0]
        cases.append(
            BenchCase(
                name=own_name(f'{number:03d}-{Path(image).stem}', taken),
                image=image,
                source=source,
                target=check_text(
                    row.get('target_text'), 'target_text', where
                ),
                kind='non-rigid',
            )
        )
    return cases
