"""Reads damaged files by the hundred thousand, and counts what comes of it.

    python tools/soak/fuzz.py --inputs 100000

Every reader must give what it reads, or tell a user's mistake in one line.
Anything else is printed with the number that repeats it, and makes the exit
code 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

from readers import Reader, all_readers

SHOWN = 5  # tracebacks of each reader


def fuzz(reader: Reader, inputs: int, seed: int, keep: Path) -> Counter[str]:
    """Reads damaged files by one reader.

    Args:
        inputs: How many files.
        seed: Of the first one, the next ones count on.
        keep: Folder for the files that were told wrongly.

    Returns:
        How many were 'read', 'refused' and 'traceback'.
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, reader.file)
        for number in range(seed, seed + inputs):
            content = reader.damaged(Random(f'{reader.name} {number}'))
            try:
                counts[reader.outcome(path, content)] += 1
            except Exception:
                counts['traceback'] += 1
                if counts['traceback'] <= SHOWN:
                    print(f'--- {reader.name}, input {number}')
                    print(traceback.format_exc(limit=-6)[-2000:])
                    name = f'{reader.name} {number}{path.suffix}'
                    (keep / name).write_bytes(content)
    return counts


def main() -> int:
    """Goes through all readers; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--inputs', type=int, default=100_000, help='in all')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', help='the readers with this in their names')
    parser.add_argument(
        '--keep', type=Path, default='fuzz', help='folder for what failed'
    )
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # what libraries say about odd files
    args.keep.mkdir(parents=True, exist_ok=True)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        readers = [
            reader
            for reader in all_readers(Path(folder))
            if args.only is None or args.only in reader.name
        ]
    each = -(-args.inputs // len(readers))
    columns = ('read', 'refused', 'traceback')
    print(f'{"reader":24s}' + ''.join(f'{each:>11s}' for each in columns))
    started = time.monotonic()
    for reader in readers:
        start = time.monotonic()
        counts = fuzz(reader, each, args.seed, args.keep)
        total += counts
        figures = ''.join(f'{counts[name]:11d}' for name in columns)
        spent = time.monotonic() - start
        print(f'{reader.name:24s}{figures}{spent:9.0f} s', flush=True)
    figures = ''.join(f'{total[name]:11d}' for name in columns)
    spent = time.monotonic() - started
    print(f'{f"{total.total()} inputs":24s}{figures}{spent:9.0f} s')
    return int(bool(total['traceback']))


if __name__ == '__main__':
    sys.exit(main())
