"""Files that are either complete or not there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmhiper.utils.errors import UserError

_TEMPORARY = re.compile(r'\..+\.(\d+)\.tmp')  # see `atomic_path`


class WriteError(UserError, OSError):
    """A file cannot be written; the message names it and says why."""


def check_writable(folder: str | Path) -> None:
    """Create a folder for results, and refuse one that cannot be written.

    Raises:
        ValueError: If it cannot be created or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f'Cannot write to the folder {str(folder)!r}: {error.strerror}. '
            'Choose another one (--work-dir, --out-dir) or free its place.'
        ) from None


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that replaces it at the end.

    A process that dies in between leaves the old file, or none; an
    exception removes the temporary file. File and folder are flushed to the
    disk, so that it holds after a power failure too.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        Where to write instead.

    Raises:
        WriteError: If the operating system refuses: a full disk, a folder
            that is read-only or gone.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # not every file system flushes folders
            _flush(path.parent)
    except OSError as error:
        if error.errno is None or not _concerns(error, temporary):
            raise
        raise WriteError(
            f'Cannot write {str(path)!r}: {_reason(error, path)} Free or '
            'restore its place, or choose another folder.'
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _concerns(error: OSError, temporary: Path) -> bool:
    """Whether an error is about the file that is written."""
    # A call that writes to an open file names none; to open another one does.
    return error.filename in (None, str(temporary), temporary)


def _reason(error: OSError, path: Path) -> str:
    """Why a file cannot be written, as a sentence."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return f'its folder {str(path.parent)!r} is gone.'
    return f'{error.strerror}.'


def _flush(path: Path) -> None:
    """Has the disk hold what a file or a folder holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed processes began to write.

    Args:
        folder: The folder, which may not exist.
    """
    if os.name == 'nt':  # which has no harmless way to ask for a process
        return
    for file in Path(folder).glob('.*.tmp'):
        found = _TEMPORARY.fullmatch(file.name)
        if found and not _is_alive(int(found[1])):
            with suppress(OSError):
                file.unlink()


def _is_alive(pid: int) -> bool:
    """Whether another process of that number runs on this machine."""
    if pid == os.getpid():  # which has not begun to write
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
