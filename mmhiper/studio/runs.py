"""What trainings leave in their work dirs: how far they are, and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import UserError
from mmhiper.utils.work_dir import MARK, find_checkpoint, list_checkpoints

REQUEST = 'request.json'  # what was asked for
CONFIG = 'asked.json'  # the config that was made of it: data, no code
LOG = 'console.log'
_LAST = 100_000  # bytes of a log that are looked at


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        done: Iterations, or timesteps of a curriculum.
        total: Of them; 0 if that is not known.
        left: Seconds, likewise None.
        curve: Iterations and the loss on noise that stays the same.
    """

    done: int = 0
    total: int = 0
    left: float | None = None
    curve: dict[int, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """What is done of it, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class Run:
    """A work dir.

    Args:
        folder: It exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    def __repr__(self) -> str:
        return f'Run({self.name!r})'

    def asked(self) -> dict[str, Any]:
        """What was asked for; nothing of other runs."""
        with suppress(OSError, ValueError):
            found = json.loads((self.folder / REQUEST).read_text('utf-8'))
            if isinstance(found, dict):
                return found
        return {}

    def note(self, **asked: Any) -> None:
        """Adds to what was asked for."""
        text = json.dumps(self.asked() | asked, indent=1)
        with atomic_path(self.folder / REQUEST) as path:
            path.write_text(text, 'utf-8')

    def steps(self) -> list[Path]:
        """The work dirs of its trainings, one after another."""
        inside = sorted(self.folder.glob(f'*/{CONFIG}'))
        return [self.folder, *(file.parent for file in inside)]

    def progress(self) -> Progress:
        """Read from the scalars of MMEngine, also those before a resume."""
        result, total, seconds = Progress(), 0, 0.0
        with suppress(OSError, ValueError, KeyError, TypeError):
            cfg = json.loads((self.folder / CONFIG).read_text('utf-8'))
            total = cfg['train_cfg'].get('max_iters', 0)
            total = total or cfg['model'].get('num_steps', 0)
        with suppress(ValueError, KeyError, TypeError):  # not of MMEngine
            for entry in self._scalars():
                if 'fixed_loss' in entry:
                    loss = float(entry['fixed_loss'])
                    result.curve[int(entry['step'])] = loss
                elif 'iter' in entry:
                    # of a curriculum the timesteps, whose number is known
                    done = int(entry.get('timestep', entry['iter']))
                    result.done = done
                    seconds = float(entry.get('time', 0.0))
                    seconds *= int(entry['iter']) / max(1, done)
        result.total = total
        if seconds and total:
            result.left = max(0, total - result.done) * seconds
        return result

    def _scalars(self) -> Iterator[dict[str, Any]]:
        for file in sorted(self.folder.glob('*/vis_data/scalars.json')):
            with suppress(OSError), file.open(encoding='utf-8') as lines:
                for line in lines:
                    with suppress(ValueError):  # just being written
                        yield json.loads(line)

    def changed(self) -> int:
        """When its training last wrote something to look at, in ns."""
        looked = ('*/vis_data/scalars.json', 'previews/*.png', LOG)
        files = [file for each in looked for file in self.folder.glob(each)]
        with suppress(OSError):  # a preview that gave way to the next
            return max((file.stat().st_mtime_ns for file in files), default=0)
        return 0

    def preview(self) -> Path | None:
        """The newest preview."""
        files = sorted(self.folder.glob('previews/iter_*.png'))
        return files[-1] if files else None

    def sheets(self) -> list[Path]:
        """What came of it side by side, and where words are: at most two."""
        names = ('sheet.png', 'attention.png', 'test/sheet.png')
        sheets = [self.folder / name for name in names]
        return [file for file in sheets if file.is_file()]

    def pictures(self) -> list[Path]:
        """The results: sheets first, then what was drawn."""
        drawn = self.folder.glob('[0-9][0-9][0-9].png')
        return [*self.sheets(), *sorted(drawn)]

    def report(self) -> list[str]:
        """What ``mmhiper test`` has measured, a line each; none without."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            file = self.folder / 'test' / 'report.json'
            found = json.loads(file.read_text('utf-8'))
            return [
                f'{name.replace("_", " ")}: {value:.3f} with what was '
                f'learned, {found["plain"][name]:.3f} with plain words'
                for name, value in dict(found['learned']).items()
            ]
        return []

    def snapshots(self) -> dict[int, Path]:
        """Checkpoints by their iterations."""
        return {
            int(re.findall(r'\d+', path.stem)[-1]): path
            for path in reversed(list_checkpoints(self.folder))
        }

    def checkpoint(self) -> Path:
        """The newest complete one; `FileNotFoundError` if there is none."""
        return find_checkpoint(self.folder)

    def said(self, start: str) -> str:
        """The last line of the log that begins with some words."""
        with suppress(OSError), (self.folder / LOG).open('rb') as log:
            log.seek(max(0, log.seek(0, 2) - _LAST))
            lines = log.read().decode('utf-8', 'replace').splitlines()
            for line in reversed(lines):
                if start in line:
                    return line[line.index(start) :].strip()
        return ''


def list_runs(root: Path, kind: str = '') -> list[Run]:
    """The work dirs below a folder, the newest first.

    Args:
        root: The folder.
        kind: Of those that were asked for so; '' for all.
    """
    found = []
    with suppress(OSError):
        for folder in root.iterdir():
            run = Run(folder)
            if kind and run.asked().get('kind') != kind:
                continue
            if (folder / REQUEST).is_file() or (folder / MARK).is_file():
                found.append((folder.stat().st_mtime, run.name, run))
    return [run for *_, run in sorted(found, reverse=True)]


def find_run(root: Path, name: Any) -> Run:
    """The work dir of a name, which a stranger may have sent.

    Raises:
        ValueError: If it is none of :func:`list_runs`.
    """
    for run in list_runs(root):
        if run.name == name:
            return run
    raise UserError('Choose one of the runs that there are.')
