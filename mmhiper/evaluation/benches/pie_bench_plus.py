"""PIE-Bench++ (arXiv 2407.20232), as the hub has it.

    0_random_140/*.parquet and so on, a folder for each sort of edit, with the
    columns id, image, source_prompt, target_prompt, blended_words, mask

Its pictures are written to a folder before they are edited.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmhiper.evaluation.benches.case import (
    MOST_CASES,
    BenchCase,
    check_count,
    check_runs,
    check_text,
    own_name,
)
from mmhiper.evaluation.benches.pie_bench import kind_of, make_case
from mmhiper.utils.atomic import atomic_path, check_writable
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import JSON_DAMAGE, reading

FILES = '[0-9]_*/*.parquet'
COLUMNS = (
    'id',
    'image',
    'source_prompt',
    'target_prompt',
    'blended_words',
    'mask',
)
_MOST_BYTES = 4 * 2**30  # of a file, unpacked as well
_MOST_PICTURE = 64 * 2**20


def read_pie_bench_plus(root: Path, pictures: Path) -> list[BenchCase]:
    """Reads the folders with ``.parquet`` files.

    Args:
        root: The folder that they are in.
        pictures: Folder that their pictures are written to.

    Returns:
        In the order of the files.

    Raises:
        ValueError: If a file is damaged or none of PIE-Bench++, or what reads
            it is not installed.
    """
    check_writable(pictures)
    taken: set[str] = set()
    cases = []
    for path in sorted(root.glob(FILES)):
        for number, row in enumerate(_rows(path)):
            where = f'Row {number} of {str(path)!r}'
            kind = kind_of(path.parent.name[0], where)
            cases.append(_case(row, kind, where, taken, pictures))
            check_count(cases, root)
    return cases


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, one after another."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            'PIE-Bench++ is in Parquet files, which pyarrow reads: pip '
            'install pyarrow'
        ) from None
    remedy = 'Get it again.'
    with reading(path, 'is not a complete Parquet file', remedy):
        file = parquet.ParquetFile(path)
        groups = [
            file.metadata.row_group(number)
            for number in range(file.metadata.num_row_groups)
        ]
        size = sum(group.total_byte_size for group in groups)
        names = file.schema_arrow.names
        count = file.metadata.num_rows
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise FileError(
            f'{str(path)!r} is no file of PIE-Bench++: it has no column '
            f'{", ".join(missing)}.'
        )
    if size > _MOST_BYTES or count > MOST_CASES:
        raise FileError(
            f'{str(path)!r} has {count:,} rows of {size:,} bytes, more than '
            'is read of a bench.'
        )
    with file:
        # one by one: a few bytes of a dictionary may stand for many rows
        batches = file.iter_batches(batch_size=1, columns=list(COLUMNS))
        while True:
            with reading(path, 'is not a complete Parquet file', remedy):
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            yield from rows


def _case(
    row: dict[str, Any],
    kind: str,
    where: str,
    taken: set[str],
    pictures: Path,
) -> BenchCase:
    """A row, checked, its picture written."""
    name = own_name(check_text(row['id'], 'id', where), taken)
    source, target = (
        check_text(row[key], key, where)
        for key in ('source_prompt', 'target_prompt')
    )
    return make_case(
        where,
        name=name,
        image=_write(row['image'], pictures / f'{name}.jpg', where),
        source=source,
        target=target,
        kind=kind,
        words=_words(row['blended_words'], where),
        edit_options={},
        mask=check_runs(_numbers(row['mask']), where),
    )


def _write(image: Any, path: Path, where: str) -> str:
    """Writes a picture as it is, where it is not there yet."""
    data = image.get('bytes') if isinstance(image, dict) else image
    if not isinstance(data, bytes) or not 0 < len(data) <= _MOST_PICTURE:
        raise FileError(f'{where}: `image` must hold the bytes of a picture.')
    if not path.is_file() or path.stat().st_size != len(data):
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    return str(path)


def _numbers(mask: Any) -> Any:
    """The numbers of a mask, between blanks or in brackets."""
    if not isinstance(mask, str):
        return list(mask) if isinstance(mask, tuple) else mask
    words = mask.replace(',', ' ').strip().strip('[]').split()
    if not all(word.isascii() and word.isdigit() for word in words):
        return mask
    return [int(word[:12]) for word in words]


def _words(words: Any, where: str) -> tuple[list[str], list[str]]:
    """Words of source and target, of a list of pairs with commas."""
    if not words:
        return [], []
    with reading(
        where, 'has other `blended_words`', 'Get it again.', JSON_DAMAGE
    ):
        pairs = json.loads(words) if isinstance(words, str) else list(words)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, str) for pair in pairs
    ):
        raise FileError(
            f'{where}: `blended_words` must be a list of pairs, but is '
            f'{str(words)[:80]!r}.'
        )
    split = [[part.strip() for part in pair.split(',')] for pair in pairs]
    old = [parts[0] for parts in split if parts[0]]
    new = [parts[-1] for parts in split if parts[-1]]
    return old, new
