"""What the benchmarks of one training step share.

A side is a function that takes the folder of a model and returns a step. Each
side runs in a process of its own, so that neither's memory counts for the
other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sizes import SIZES, make_model

WIDTH = SIZES['sd1'].width
Step = Callable[[], None]


def device() -> str:
    """Where both sides run: CUDA where there is a device."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def make_folder(folder: Path) -> None:
    """Write a Stable Diffusion 1.x with random weights (half precision)."""
    make_model(folder, SIZES['sd1'])


class PeakMemory:
    """The largest memory seen inside the ``with`` block, in GiB.

    Device memory on CUDA; elsewhere the process's resident memory, sampled
    every 20 ms.
    """

    def __enter__(self) -> PeakMemory:
        self.gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.gib = max(self.gib, self._now())

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**30
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return pages * 4096 / 2**30

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(step: Step, steps: int) -> dict[str, float]:
    """Seconds per step (median) and peak memory of the steps."""
    step()  # caches, allocations
    seconds = []
    with PeakMemory() as memory:
        for _ in range(steps):
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return dict(seconds=statistics.median(seconds), gib=memory.gib)


def compare(
    description: str,
    plain: Callable[[Path], Step],
    ours: Callable[[Path], Step],
    make: Callable[[Path], None] = make_folder,
) -> None:
    """Measure both sides, each in its own process, and print the ratio.

    Args:
        description: Of the command line.
        plain: The other side.
        ours: This package.
        make: Writes the models that both sides load.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument('--side', choices=('ours', 'plain'))
    parser.add_argument('--folder', type=Path, help='a model to reuse')
    args = parser.parse_args()
    if args.side:
        step = dict(ours=ours, plain=plain)[args.side](args.folder)
        print(json.dumps(measure(step, args.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / 'model_index.json').exists():
            make(folder)
        results = {}
        for side in ('plain', 'ours'):
            command = [sys.executable, sys.argv[0], '--side', side]
            command += ['--folder', str(folder), '--steps', str(args.steps)]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            results[side] = json.loads(output.splitlines()[-1])
            print(
                f'{side:6s} {results[side]["seconds"]:.2f} s per step, '
                f'{results[side]["gib"]:.2f} GiB peak'
            )
    ratio = results['plain']['seconds'] / results['ours']['seconds']
    print(f'ours is {ratio:.2f} times as fast')
