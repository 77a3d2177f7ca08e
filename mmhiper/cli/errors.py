"""What becomes of an error on the command line."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import torch

from mmhiper.interruption import STOP
from mmhiper.utils.errors import UserError
from mmhiper.utils.registries import describe_unknown_type

# of the operating system: to write, or to take a name
_REFUSALS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
}


def _mistake(error: Exception) -> str | None:
    """What to tell a user whose mistake an error is; None of a bug."""
    words = str(error)
    if isinstance(error, UserError):
        return words
    if isinstance(error, FileNotFoundError) and error.filename:
        return f'There is no file {error.filename!r}. Check the path.'
    if isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and 'backend out of memory' in words
    ):
        return (
            'The memory of the device is used up. Draw fewer pictures at a '
            "time, load the backbone in half (model.sd.dtype='bf16'), or free "
            'memory that other programs hold ("mmhiper doctor" shows it).'
        )
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return f'{error.strerror}: {error.filename or "no file is named"}.'
    if isinstance(error, TypeError) and 'unexpected keyword' in words:
        return f'{words} (check the options, and the config)'
    if isinstance(error, ImportError) and 'install' in words:
        return words  # an optional package that a config asks for
    if isinstance(error, ImportError) and words.startswith('Failed to import'):
        # of mmengine
        return f'{words}, of `custom_imports`: is its folder on PYTHONPATH?'
    if isinstance(error, KeyError) and ' registry' in words:
        # of mmengine: an unknown `type` in a config
        said = str(error.args[0])
        return describe_unknown_type(said) or said
    return None


@contextmanager
def user_errors(debug: bool = False) -> Iterator[None]:
    """Report a user's mistake in one line instead of a traceback.

    Ends the process with code 1 after a mistake, with 128 and its number
    after a signal (130 after Ctrl-C). A mistake
    is a :class:`UserError`, a file that does not exist, cannot be written or
    finds no space, an unknown option or type in a
    config, a missing optional package, or too little memory. Everything else
    is a bug and keeps its traceback.

    Args:
        debug: Whether a mistake keeps its traceback too.
    """
    first = int(os.environ.get('RANK', 0)) == 0
    with STOP.handled():
        try:
            yield
        except Exception as error:
            if STOP.signum is not None:  # what became of an interruption
                _leave('', first)
            if not first:
                _wait_for_the_first()
            words = _mistake(error)
            if debug or words is None:
                raise
            print(f'error: {words}', file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt as stop:
            _leave(str(stop), first)


def _wait_for_the_first() -> None:
    """Gives the first process the word."""
    # Every process finds the same mistake, or finds that another one has
    # ended. The first one tells, and the launcher ends the others at its exit;
    # unless it has not found it, on another machine for instance.
    try:
        time.sleep(30)
    except KeyboardInterrupt:  # as the launcher ends it
        sys.exit(STOP.exit_code)


def _leave(words: str, tell: bool) -> NoReturn:
    """Ends the process after a signal."""
    if tell:
        with suppress(OSError):  # the terminal may be gone
            # on a line of its own, not behind a progress bar
            print(f'\nInterrupted. {words}'.rstrip(), file=sys.stderr)
    sys.exit(STOP.exit_code)
