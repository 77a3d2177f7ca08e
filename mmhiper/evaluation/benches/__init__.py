"""Benches of edits, read from folders that the user has."""

from __future__ import annotations

from pathlib import Path

from mmhiper.evaluation.benches import (
    dreambench,
    pie_bench,
    pie_bench_plus,
    tedbench,
)
from mmhiper.evaluation.benches.case import BenchCase, decode_mask
from mmhiper.utils.errors import FileError, MissingFileError

__all__ = ['BenchCase', 'decode_mask', 'read_bench']

# What tells a bench, the folder below that it may lie in, and who reads it.
_BENCHES = (
    (pie_bench.LIST, 'data', pie_bench.read_pie_bench),
    (tedbench.LIST, 'tedbench', tedbench.read_tedbench),
    (dreambench.LIST, 'dataset', dreambench.read_dreambench),
)


def read_bench(folder: str | Path, pictures: str | Path) -> list[BenchCase]:
    """Reads a bench, whichever it is.

    Args:
        folder: That of PIE-Bench, PIE-Bench++, TEdBench or DreamBench, as it
            is published.
        pictures: Folder that pictures are written to which are none in files
            of their own.

    Returns:
        At least one case.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no bench, or something in it is wrong.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(
            f'Wanted the folder of a bench, but {str(root)!r} is none. Check '
            'the path.'
        )
    for name, below, read in _BENCHES:
        for place in (root, root / below):
            if (place / name).is_file():
                return read(place)
    if next(root.glob(pie_bench_plus.FILES), None) is not None:
        return pie_bench_plus.read_pie_bench_plus(root, Path(pictures))
    raise FileError(
        f'{str(root)!r} is no bench: wanted {pie_bench.LIST} (PIE-Bench), '
        f'{pie_bench_plus.FILES} (PIE-Bench++), {tedbench.LIST} (TEdBench) or '
        f'{dreambench.LIST} (DreamBench) in it.'
    )
