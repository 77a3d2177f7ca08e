"""Progress bars, which stay short where they are written to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm.asyncio import tqdm_asyncio
from tqdm.auto import tqdm

# Between two lines of a file or a pipe. A bar that is done before writes none.
SECONDS = 5.0
_CURSOR_UP = '\x1b[A'


class _Lines:
    """A file in which each state of a bar is a line of its own.

    A terminal is told to go back and write over the line.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last = ''
        self.encoding = getattr(file, 'encoding', None)

    def write(self, text: str) -> None:
        """Write what there is to read in a text, and was not just before.

        A bar writes its last state again when it is closed.
        """
        words = text.replace(_CURSOR_UP, '').strip()
        if words and words != self._last:
            self._file.write(f'{words}\n')
            self._last = words

    def flush(self) -> None:
        self._file.flush()


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Opens the bar of a loop: every one of this project comes from here.

    On a terminal and in a notebook it is tqdm's own. Where the errors go to
    a file or a pipe it writes a line every few seconds: a bar of so many steps
    that each of them redrew it would be hundreds of kilobytes.

    Args:
        iterable: What to go through.
        **options: Of tqdm, but for ``file``.

    Returns:
        The bar.
    """
    notebook = tqdm is not tqdm_asyncio
    if not notebook and not sys.stderr.isatty():
        options |= dict(
            file=_Lines(sys.stderr), mininterval=SECONDS, delay=SECONDS
        )
    return tqdm(iterable, **options)
