"""One training at a time, the others in a line that everyone sees."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mmhiper.studio.runs import CONFIG, LOG, Run
from mmhiper.utils.errors import UserError

WAITING, LEARNING, DRAWING = 'waiting', 'learning', 'drawing the results'
DONE, STOPPED, FAILED = 'done', 'stopped', 'failed'
_BUSY = (WAITING, LEARNING, DRAWING)
_STOP_CODES = (128 + 15, 128 + 2, -15)
_PATIENCE = 60  # seconds in which a training saves and ends


class Jobs:
    """Trains run after run, each in processes of the command line.

    Args:
        finish: What is drawn when a run has learned.
    """

    def __init__(self, finish: Callable[[Run], None]) -> None:
        self._finish = finish
        self._changed = threading.Condition()
        self._states: dict[Path, str] = {}
        self._line: list[Run] = []  # the first one is at work
        self._process: subprocess.Popen | None = None
        self._closed = False
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def add(self, run: Run) -> None:
        """Has a run learn, or go on, when those before it are done.

        Raises:
            ValueError: If it is in the line already.
        """
        with self._changed:
            if run.folder in [each.folder for each in self._line]:
                raise UserError(f'{run.name!r} is at work, or waits already.')
            self._line.append(run)
            self._states[run.folder] = WAITING
            self._changed.notify_all()

    def stop(self, run: Run) -> None:
        """Takes a run out of the line; one at work saves and ends."""
        with self._changed:
            if self.state(run) == WAITING:
                self._line.remove(
                    next(r for r in self._line if r.folder == run.folder)
                )
                self._states[run.folder] = STOPPED
            elif self.state(run) == LEARNING:
                self._states[run.folder] = STOPPED
                if self._process is not None:
                    self._process.terminate()

    def state(self, run: Run) -> str:
        """What a run is doing."""
        known = self._states.get(run.folder)
        if known is None:  # of before this server was started
            ended = run.pictures() or 'remark' in run.asked()
            return DONE if ended and run.snapshots() else STOPPED
        return known

    def is_busy(self, run: Run) -> bool:
        """Whether a run is at work or waits."""
        return self.state(run) in _BUSY

    def line(self) -> list[Run]:
        """The run at work, and those that wait."""
        with self._changed:
            return list(self._line)

    def close(self) -> None:
        """Has the training at work save, and starts no other."""
        with self._changed:
            self._closed = True
            process = self._process
            for run in self._line:
                self._states[run.folder] = STOPPED
            if process is not None:
                process.terminate()
            self._changed.notify_all()
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._line and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                run = self._line[0]
                self._states[run.folder] = LEARNING
            try:
                end = self._learn(run)
            except Exception as error:  # the line goes on, whatever this was
                if not isinstance(error, UserError):
                    traceback.print_exc()
                end = f'{FAILED}: {error}'
            with self._changed:
                self._states[run.folder] = end
                self._line.remove(run)
                self._changed.notify_all()

    def _learn(self, run: Run) -> str:
        """Trains and draws one run; says how it ended."""
        for folder in run.steps():
            code = self._train(run, folder)
            if code in _STOP_CODES or self.state(run) == STOPPED:
                return STOPPED
            if code:
                reason = run.said('error: ').removeprefix('error: ')
                return f'{FAILED}: {reason or f"see {LOG} in its folder"}'
        with self._changed:
            if self._closed:
                return STOPPED
            self._states[run.folder] = DRAWING
        self._finish(run)
        return DONE

    def _train(self, run: Run, folder: Path) -> int:
        """A training as the command line runs it; its exit code."""
        command = [sys.executable, '-m', 'mmhiper', 'train']
        command += [str(folder / CONFIG), '--work-dir', str(folder)]
        with (run.folder / LOG).open('ab') as log:
            with self._changed:
                if self._states[run.folder] == STOPPED:
                    return _STOP_CODES[0]
                # a group of its own: Ctrl-C is passed on once, by `close`
                self._process = subprocess.Popen(
                    [*command, '--resume'],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            code = self._process.wait()
        with self._changed:
            self._process = None
        return code
