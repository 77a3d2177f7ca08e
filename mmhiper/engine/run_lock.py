"""One run at a time in a work_dir."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmhiper.utils.errors import UserError
from mmhiper.utils.work_dir import read_mark

NAME = '.run.lock'
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def run_lock(work_dir: str | Path, name: str = NAME) -> Iterator[None]:
    """Keeps other runs out of a folder, as long as this process lives.

    The operating system holds the lock and lets it go with the process,
    however that ends; the file itself stays and means nothing. In one process
    it may be taken again inside.

    Args:
        work_dir: The folder, which exists.
        name: Of the file; runs that share a folder have one each.

    Yields:
        The block in which the folder is this run's.

    Raises:
        ValueError: If another run has the folder.
    """
    lock = FileLock(Path(work_dir, name), is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        mark = read_mark(work_dir)
        who = f', process {mark.pid} on {mark.host},' if mark else ''
        raise UserError(
            f'Another run{who} is writing to the folder {str(work_dir)!r}. '
            'Wait until it ends, stop it, or choose another folder '
            '(--work-dir, --out-dir).'
        ) from None
    except (NotImplementedError, OSError) as error:
        if getattr(error, 'errno', errno.ENOSYS) not in _UNSUPPORTED:
            raise
        warnings.warn(
            f'The file system of {str(work_dir)!r} has no locks: see to it '
            'that no second run is started in this folder.',
            stacklevel=2,
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()
