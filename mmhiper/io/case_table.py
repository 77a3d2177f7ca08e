"""Tables of edits, one case a row."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmhiper.utils.errors import FileError
from mmhiper.utils.names import safe_name, same_place
from mmhiper.utils.reading import reason_of
from mmhiper.utils.text_files import lines_of, read_text

NEEDED = ('name', 'image', 'prompt', 'target')
# Fractions of the steps: a list of them makes an edit of each.
TAUS = ('tau_v', 'tau_c', 'tau_s', 'tau_u')
MOST_OF_A_ROW = 1000  # cases: lists of four columns multiply
_DELIMITERS = {',': 'comma', ';': 'semicolon', '\t': 'tab'}
INVERSIONS = 'inversions'  # a folder beside those of the cases


@dataclass(frozen=True)
class Case:
    """A picture, its text, and an edit.

    Attributes:
        name: Also the folder of its results.
        image: Path of the picture.
        prompt: What it shows.
        target: The prompt of the edit.
        options: See ``mmhiper.models.edit_options.EditOptions``.
    """

    name: str
    image: str
    prompt: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)


def read_cases(path: str | Path) -> list[Case]:
    """Reads a table, as spreadsheets save it.

    Between the cells are commas, semicolons or tabs, the same in all lines;
    which, the names of the columns tell. Their capitals do not matter.

    Args:
        path: With the columns of ``COLUMNS``. An image is named by its path
            from the folder of the table, or an absolute one; it is only ever
            read. A row with a list of values in a ``tau`` column is as many
            cases, whose names say the value.

    Returns:
        One or more, each with a name of its own that is a name of a folder on
        every system.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table, a column is missing or unknown, or a
            value is wrong.
    """
    text = read_text(path, 'a .csv table of cases')
    path = Path(path)
    text, delimiter = _delimiter_of(text)
    rows = _rows_of(text, delimiter, path)
    columns = _check_columns(path, rows[0][1] if rows else [])
    if len(rows) < 2:
        raise FileError(f'The table {str(path)!r} has no cases.')
    cases = []
    places = {same_place(INVERSIONS)}
    for line, row in rows[1:]:
        where = f'Line {line} of the table {str(path)!r}'
        cells = _cells_of(where, row, columns, delimiter)
        _check_cells(where, cells)
        for case in _cases(where, cells, path.parent):
            _check_name(where, case.name, places)
            places.add(same_place(case.name))
            cases.append(case)
    return cases


def _delimiter_of(text: str) -> tuple[str, str]:
    """What stands between the cells, told by the names of the columns."""
    # Where a comma is in numbers, spreadsheets put semicolons between cells.
    # A first line `sep=;`, which is a note for spreadsheets, is made blank.
    note = re.match(r'(\s*)"?sep=([,;\t])"?[ ,;\t]*(?=[\r\n])', text, re.I)
    if note:
        return note[1] + text[note.end() :], note[2]
    header = next((line for line in lines_of(text) if line.strip()), '')

    def known(delimiter: str) -> int:
        cells = header.split(delimiter)
        return len({_column(cell.strip(' "')) for cell in cells} & {*COLUMNS})

    return text, max(_DELIMITERS, key=known)


def _rows_of(
    text: str, delimiter: str, path: Path
) -> list[tuple[int, list[str]]]:
    """The rows with their lines; those without a word are left out."""
    # a cell in quotes may have several lines
    table = csv.reader(
        io.StringIO(text, newline=''),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    rows: list[tuple[int, list[str]]] = []
    while True:
        try:
            row = next(table, None)
        except csv.Error as error:
            raise FileError(
                f'Line {table.line_num} of {str(path)!r} makes it no sound '
                f'.csv table: {reason_of(error)}. Close its quotes, write '
                'each quote in a quoted text twice, and save it with commas, '
                'semicolons or tabs between the cells.'
            ) from error
        if row is None:
            return rows
        if any(cell.strip() for cell in row):
            rows.append((table.line_num, row))


def _column(cell: str) -> str:
    """The name of a column, however a person writes it."""
    return re.sub(r'[ _-]+', '_', cell.strip().lower())


def _without_end(row: list[str], length: int = 0) -> list[str]:
    """A row without the empty cells that spreadsheets put behind it."""
    while len(row) > length and not row[-1].strip():
        row = row[:-1]
    return row


def _check_columns(path: Path, header: list[str]) -> list[str]:
    """The columns of a table, with those that are needed."""
    columns = [_column(cell) for cell in _without_end(header)]
    missing = [name for name in NEEDED if name not in columns]
    unknown = sorted(set(columns) - set(COLUMNS))
    if missing or unknown or len(set(columns)) < len(columns):
        raise FileError(
            f'The table {str(path)!r} must have the columns '
            f'{", ".join(NEEDED)} and may have '
            f'{", ".join(COLUMNS[len(NEEDED) :])}, each once, in its first '
            'line, with commas, semicolons or tabs between them; missing: '
            f'{missing or "none"}, unknown: {str(unknown)[:200]}.'
        )
    return columns


def _cells_of(
    where: str, row: list[str], columns: list[str], delimiter: str
) -> dict[str, str]:
    """The cells of a row by their columns."""
    row = _without_end(row, len(columns))
    if len(row) == len(columns):
        return dict(zip(columns, row, strict=True))
    others = [
        _DELIMITERS[other]
        for other in _DELIMITERS
        if other != delimiter
        and len(delimiter.join(row).split(other)) == len(columns)
    ]
    mixed = ''
    if others:
        mixed = f' Are there {others[0]}s between them in this line?'
    raise FileError(
        f'{where} must have {len(columns)} cells, one for each column, with '
        f'{_DELIMITERS[delimiter]}s between them as in the first line, but '
        f'has {len(row)}.{mixed} An empty cell has its '
        f'{_DELIMITERS[delimiter]} too; a text with {_DELIMITERS[delimiter]}s '
        'needs quotes.'
    )


def _check_cells(where: str, cells: Mapping[str, str]) -> None:
    """Refuses a row without its texts."""
    for column in NEEDED:
        if not cells[column].strip():
            raise FileError(f'{where} has an empty cell in `{column}`.')


def _check_name(where: str, name: str, taken: set[str]) -> None:
    """Refuses a name that is no folder of its own."""
    if safe_name(name) != name or same_place(name) in taken:
        raise FileError(
            f'{where}: the name of a case is a folder of its own on every '
            'system: letters, digits and such, no path, no "." in front or at '
            f'the end, no device of Windows, not {INVERSIONS!r}, and each '
            f'once, whatever its capitals; but got {name[:80]!r}.'
        )


def _cases(where: str, cells: Mapping[str, str], folder: Path) -> list[Case]:
    """Turns a row into its cases; empty cells are defaults."""
    options: dict[str, Any] = {}
    for column, read in OPTIONS.items():
        if cells.get(column):
            try:
                options[column] = read(cells[column])
            except ValueError:
                raise FileError(
                    f'{where}, case {cells["name"]!r}: `{column}` must be '
                    f'{_EXAMPLES[read]}, but got {cells[column][:80]!r}.'
                ) from None
    several = [tau for tau in TAUS if isinstance(options.get(tau), list)]
    count = math.prod(len(options[tau]) for tau in several)
    if count > MOST_OF_A_ROW:
        raise FileError(
            f'{where}, case {cells["name"]!r}, has lists for {count:,} edits; '
            f'at most {MOST_OF_A_ROW:,} are made of a row. Shorten them, or '
            'divide the row.'
        )
    cases = []
    for taus in itertools.product(*(options[tau] for tau in several)):
        chosen = dict(zip(several, taus, strict=True))
        name = '-'.join(
            [cells['name'], *(f'{t}{_as_name(chosen[t])}' for t in several)]
        )
        cases.append(
            Case(
                name,
                str(folder / cells['image']),
                cells['prompt'],
                cells['target'],
                options | chosen,
            )
        )
    return cases


def _as_name(tau: float | tuple[float, ...]) -> str:
    """A fraction or a range as part of a name."""
    numbers = tau if isinstance(tau, tuple) else (tau,)
    return '-'.join(f'{number:g}' for number in numbers)


def _word(cell: str) -> str | int:
    """A word, or the place of one."""
    cell = cell.strip()
    return int(cell[1:]) if re.fullmatch(r'#\d{1,4}', cell) else cell


def _words(cell: str) -> Any:
    """Words of both prompts, or of the source > of the target."""
    sides = [[*map(_word, side.split(';'))] for side in cell.split('>')]
    return sides * 2 if len(sides) == 1 else sides


def _values(cell: str) -> dict[str | int, Any]:
    """Words with a value each."""
    pairs = (pair.split('=') for pair in cell.split(';'))
    return {_word(word): _numbers(value) for word, value in pairs}


def _numbers(cell: str) -> Any:
    """A number, several in (round), or a list of both in [square] brackets."""
    cell = cell.strip()
    if cell.startswith('[') and cell.endswith(']'):
        # at the commas that are not in round brackets
        return [*map(_number, re.split(r',(?![^()]*\))', cell[1:-1]))]
    return _number(cell)


def _number(cell: str) -> float | tuple[float, ...]:
    """A number, or several in (round) brackets."""
    cell = cell.strip()
    if cell.startswith('(') and cell.endswith(')'):
        return tuple(map(float, cell[1:-1].split(',')))
    return float(cell)


# How the cells of a column are read, and what they look like.
OPTIONS: dict[str, Callable[[str], Any]] = {
    'edit_type': str,
    'align': str,
    **dict.fromkeys(TAUS, _numbers),
    'blend_words': _words,
    'substruct_words': _words,
    'thresholds': _numbers,
    'start_blend': _numbers,
    'reweight': _values,
    'cross_replace': _values,
}
_EXAMPLES: dict[Callable[[str], Any], str] = {
    _numbers: 'a number, or numbers in brackets ("(0.1, 0.6)" starts and '
    'ends, "[0.4, 0.6]" is an edit with each), with decimal points',
    _values: 'words with a number each ("hat=2; red=0.5")',
}
COLUMNS = (*NEEDED, *OPTIONS)
