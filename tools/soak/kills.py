"""Kill a training at random moments, resume it, and compare what it learned.

    python tools/soak/kills.py --kills 20

A short training with the bundled mini-sd is started, killed at a random moment
(by SIGKILL, SIGTERM, SIGINT or SIGHUP, in turn), and started again with
--resume, until it is done; then another begins. What each has learned must
equal, bit for bit, what a training learned that nobody killed. One line of
figures at the end; exit code 1 if anything differs, a traceback appears, or a
signal ends with another code than it should.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Report:
    """What was seen.

    Attributes:
        kills: By the name of the signal.
        moments: 'before the training' or 'while training', by whether a
            checkpoint was there.
        runs: Trainings that were brought to their end.
        faults: What should not be.
    """

    kills: Counter = field(default_factory=Counter)
    moments: Counter = field(default_factory=Counter)
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The figures."""
        kills = ', '.join(f'{n} {name}' for name, n in self.kills.items())
        moments = ', '.join(f'{n} {name}' for name, n in self.moments.items())
        return (
            f'{sum(self.kills.values())} kills ({kills}; {moments}), '
            f'{self.runs} trainings resumed to their end, '
            f'{len(self.faults)} fault(s)'
        )

    def fault(self, words: str) -> None:
        """Notes, and shows, what should not be."""
        self.faults.append(words)
        print(f'FAULT: {words}', flush=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Kill a training at random moments, and resume it.'
    )
    parser.add_argument('--kills', type=int, default=20, help='(20)')
    parser.add_argument('--iters', type=int, default=60, help='(60)')
    parser.add_argument('--interval', type=int, default=7, help='(7)')
    parser.add_argument(
        '--config', default=ROOT / 'configs/hiper/dog.py', help='(hiper/dog)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of moments (0)')
    return parser.parse_args()


def start(args: argparse.Namespace, work_dir: Path) -> subprocess.Popen:
    """Starts, or resumes, a training."""
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / 'tools' / 'train.py'),
            str(args.config),
            '--resume',
            '--work-dir',
            str(work_dir),
            '--cfg-options',
            f'train_cfg.max_iters={args.iters}',
            f'default_hooks.checkpoint.interval={args.interval}',
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )


def learned(args: argparse.Namespace, work_dir: Path) -> dict:
    """What a finished training has learned."""
    checkpoint = torch.load(
        work_dir / f'iter_{args.iters}.pth', weights_only=True
    )
    state: dict = checkpoint['state_dict']
    return state


def kill(
    process: subprocess.Popen, number: int, work_dir: Path, report: Report
) -> None:
    """Sends a signal, and looks at what becomes of it."""
    trained = any(work_dir.glob('iter_*.pth'))
    process.send_signal(number)
    output = process.communicate()[0]
    if process.returncode == 0:  # it was quicker
        return
    name = signal.Signals(number).name
    report.kills[name] += 1
    moment = 'while training' if trained else 'before a checkpoint'
    expected = -number if number == signal.SIGKILL else 128 + number
    if 'Done: ' in output:  # nobody is left to answer a signal
        moment, expected = 'after the last words', process.returncode
    report.moments[moment] += 1
    if process.returncode != expected:
        report.fault(f'{name} ended with {process.returncode}:\n{output}')
    elif 'Traceback' in output:
        report.fault(f'{name} had a traceback:\n{output}')


def train_with_kills(
    args: argparse.Namespace,
    work_dir: Path,
    moments: random.Random,
    longest: float,
    signals: itertools.cycle,
    report: Report,
) -> None:
    """Brings a training to its end, with as many kills as are left."""
    while sum(report.kills.values()) < args.kills:
        process = start(args, work_dir)
        try:
            process.wait(moments.uniform(0.3, longest))
            break
        except subprocess.TimeoutExpired:
            kill(process, next(signals), work_dir, report)
    process = start(args, work_dir)
    output = process.communicate()[0]
    if process.returncode != 0:
        report.fault(f'not resumed ({process.returncode}):\n{output}')


def main() -> int:
    """Kill, resume, compare; 1 if something is not as it should be."""
    args = parse_args()
    moments, signals = random.Random(args.seed), itertools.cycle(SIGNALS)
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        whole = Path(folder, 'whole')
        output = start(args, whole).communicate()[0]
        longest = time.monotonic() - began
        if not (whole / f'iter_{args.iters}.pth').is_file():
            print(f'The training itself fails:\n{output}')
            return 1
        expected = learned(args, whole)
        while sum(report.kills.values()) < args.kills:
            work_dir = Path(folder, f'run_{report.runs}')
            train_with_kills(args, work_dir, moments, longest, signals, report)
            report.runs += 1
            found = learned(args, work_dir)
            same = found.keys() == expected.keys() and all(
                torch.equal(found[name], expected[name]) for name in found
            )
            if not same:
                report.fault(f'{work_dir.name} learned another thing')
            if left := list(work_dir.glob('**/.*.tmp')):
                report.fault(f'left over: {left}')
            print(report.line(), flush=True)
    return int(bool(report.faults))


if __name__ == '__main__':
    sys.exit(main())
