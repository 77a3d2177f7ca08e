"""Being told to stop: by Ctrl-C, SIGTERM or the end of a terminal.

This module imports nothing of weight, so the command line can be stopped in
one line of words from its first moment on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

# a terminal that closes is none on Windows
_SIGNALS = [
    getattr(signal, name)
    for name in ('SIGINT', 'SIGTERM', 'SIGHUP')
    if hasattr(signal, name)
]
# Seconds that a process without a launcher has to save and end by itself.
_GRACE = 15
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Interruption:
    """What this process does when it is told to stop.

    Signals are a matter of the whole process, so there is one of these,
    :data:`STOP`. Inside :meth:`handled` the first signal raises a
    ``KeyboardInterrupt``, whichever it is; while ``careful``, it is only noted
    in ``signum``, for the training to stop where nothing is lost. The second
    one ends the process at once.

    Attributes:
        signum: The signal that came.
        careful: Whether it is only noted.
        importing: Whether the process has not begun its work: an exception
            might be swallowed by a package that is just imported, so it ends
            at once, in one line.
        due: Whether the iteration that is being finished is the last one,
            since a signal came.
    """

    def __init__(self) -> None:
        self._owner: int | None = None
        self._reset()

    def _reset(self) -> None:
        """As before the first signal."""
        self.signum: int | None = None
        self.careful = self.importing = self.due = False

    @property
    def exit_code(self) -> int:
        """What a shell calls the end by this signal; Ctrl-C if none came."""
        return 128 + (self.signum or signal.SIGINT)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Answers signals, where nobody else in the process does.

        What is ignored stays so: SIGHUP of a command under ``nohup``, Ctrl-C
        of a background job. May be nested; does nothing in a thread.

        Yields:
            The block in which they are answered.
        """
        main = threading.current_thread() is threading.main_thread()
        if self._owner == os.getpid() or not main:
            yield
            return
        before = {each: signal.getsignal(each) for each in _SIGNALS}
        ours = [each for each in _SIGNALS if before[each] in _DEFAULTS]
        self._owner = os.getpid()
        for each in ours:
            signal.signal(each, self._answer)
        try:
            yield
        finally:
            for each in ours:
                signal.signal(each, before[each])
            self._owner = None
            self._reset()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal raise in a block that may be given up.

        Yields:
            The block.
        """
        careful, self.careful = self.careful, False
        try:
            yield
        finally:
            self.careful = careful

    def _answer(self, signum: int, frame: Any) -> None:
        """The handler."""
        if os.getpid() != self._owner:
            _answer_in_child(signum)
            return
        if self.signum is not None:
            # A launcher passes on what its processes may have got themselves;
            # when it is told a second time it ends, and they see that.
            if 'TORCHELASTIC_RUN_ID' in os.environ:
                return
            _leave(signum, 'Interrupted again: ended at once.')
        self.signum = signum
        if self.importing:
            _leave(signum, 'Interrupted. Nothing was begun.')
        if not self.careful:
            raise KeyboardInterrupt


def _answer_in_child(signum: int) -> None:
    """What a forked process, such as a loader of data, does instead."""
    if signum != signal.SIGINT:  # at that one its parent ends it
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


def _leave(signum: int, words: str) -> NoReturn:
    """Ends the process without unwinding it."""
    with suppress(OSError):  # the terminal may be gone
        if int(os.environ.get('RANK', 0)) == 0:
            os.write(2, f'\n{words}\n'.encode())
    os._exit(128 + signum)


def watch_launcher() -> None:
    """Ends this process when the launcher that started it has ended.

    A launcher that is killed cannot end what it started. Then this process
    gets the signal that the launcher would have passed on: it saves, and
    ends; if it cannot, since it waits for another one, it ends all the same.
    """
    name = 'launcher-watch'
    launched = 'TORCHELASTIC_RUN_ID' in os.environ
    if not launched or any(t.name == name for t in threading.enumerate()):
        return
    threading.Thread(
        target=_watch, args=(os.getppid(),), name=name, daemon=True
    ).start()


def _watch(parent: int) -> None:
    """Waits for another parent, which the orphans of a process get."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(128 + signal.SIGTERM)


STOP = Interruption()
