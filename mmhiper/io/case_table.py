"""Tables of edits, one case a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmhiper.utils.errors import FileError
from mmhiper.utils.names import safe_name, same_place
from mmhiper.utils.reading import read_text, reading

NEEDED = ('name', 'image', 'prompt', 'target')
FRACTIONS = ('tau_v', 'tau_c', 'tau_s', 'tau_u')
WEIGHTS = ('reweight', 'cross_replace')
COLUMNS = (*NEEDED, 'edit_type', *FRACTIONS, 'blend_words', *WEIGHTS)
INVERSIONS = 'inversions'  # a folder beside those of the cases


@dataclass(frozen=True)
class Case:
    """A picture, its text, and an edit.

    Attributes:
        name (str): Also the folder of its results.
        image (str): Path of the picture.
        prompt (str): What it shows.
        target (str): The prompt of the edit.
        options (dict): See ``mmhiper.models.prompt_to_prompt.EditOptions``.
    """

    name: str
    image: str
    prompt: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)


def read_cases(path: str | Path) -> list[Case]:
    """Reads a table of comma-separated values.

    Args:
        path (str or Path): With the columns of ``COLUMNS``. An image is
            named by its path from the folder of the table, or an absolute
            one; it is only ever read.

    Returns:
        list[Case]: One or more, each with a name of its own that is a name
        of a folder on every system.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table, a column is missing or unknown, or a
            value is wrong.
    """
    text = read_text(path, 'a .csv table of cases')
    path = Path(path)
    with reading(
        path,
        'is no sound .csv table',
        'Close its quotes, and save it with commas between the cells.',
        csv.Error,
    ):
        # with its lines: a cell in quotes may have several
        table = csv.reader(
            io.StringIO(text, newline=''), skipinitialspace=True, strict=True
        )
        rows = [(table.line_num, row) for row in table if row]
    columns = _check_columns(path, rows[0][1] if rows else [])
    if len(rows) < 2:
        raise FileError(f'The table {str(path)!r} has no cases.')
    cases = []
    places = {same_place(INVERSIONS)}
    for line, row in rows[1:]:
        where = f'Line {line} of the table {str(path)!r}'
        if len(row) != len(columns):
            raise FileError(
                f'{where} must have {len(columns)} cells, one for each '
                f'column, but has {len(row)}. An empty cell has its comma '
                'too; a text with commas needs quotes.'
            )
        cells = dict(zip(columns, row, strict=True))
        _check_cells(where, cells, places)
        places.add(same_place(cells['name']))
        cases.append(_case(where, cells, path.parent))
    return cases


def _check_columns(path: Path, columns: list[str]) -> list[str]:
    """Refuses a table without the columns that are needed."""
    missing = [name for name in NEEDED if name not in columns]
    unknown = sorted(set(columns) - set(COLUMNS))
    if missing or unknown or len(set(columns)) < len(columns):
        raise FileError(
            f'The table {str(path)!r} must have the columns '
            f'{", ".join(NEEDED)} and may have '
            f'{", ".join(COLUMNS[len(NEEDED) :])}, each once; missing: '
            f'{missing or "none"}, unknown: {str(unknown)[:200]}.'
        )
    return columns


def _check_cells(
    where: str, cells: Mapping[str, str], taken: set[str]
) -> None:
    """Refuses a row without its texts, or with a name that is no folder."""
    for column in NEEDED:
        if not cells[column].strip():
            raise FileError(f'{where} has an empty cell in `{column}`.')
    name = cells['name']
    if safe_name(name) != name or same_place(name) in taken:
        raise FileError(
            f'{where}: the name of a case is a folder of its own on every '
            'system: letters, digits and such, no path, no "." in front or at '
            f'the end, no device of Windows, not {INVERSIONS!r}, and each '
            f'once, whatever its capitals; but got {name[:80]!r}.'
        )


def _case(where: str, cells: Mapping[str, str], folder: Path) -> Case:
    """Turns a row into a case; empty cells are defaults."""
    options: dict[str, Any] = {}
    try:
        for column in FRACTIONS:
            if cells.get(column):
                options[column] = float(cells[column])
        for column in WEIGHTS:
            if cells.get(column):
                pairs = (pair.split('=') for pair in cells[column].split(';'))
                options[column] = {w.strip(): float(x) for w, x in pairs}
    except ValueError:
        raise FileError(
            f'{where}, case {cells["name"]!r}: `{column}` must be a number, '
            'or words with numbers ("hat=2; red=0.5"), but got '
            f'{cells[column][:80]!r}.'
        ) from None
    if cells.get('edit_type'):
        options['edit_type'] = cells['edit_type']
    if cells.get('blend_words'):
        words = [word.strip() for word in cells['blend_words'].split('>')]
        options['blend_words'] = words[0] if len(words) == 1 else words
    image = str(folder / cells['image'])
    return Case(
        cells['name'], image, cells['prompt'], cells['target'], options
    )
