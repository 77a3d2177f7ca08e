"""Warnings of a loop, each of which is told once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def each_once() -> Iterator[None]:
    """Shows a warning that comes again and again inside once.

    Python does so by itself only as long as nobody changes its filters, which
    libraries do for a while wherever they are asked to be quiet.
    """
    show, told = warnings.showwarning, set()

    def once(
        message: Warning | str,
        category: type[Warning],
        *rest: Any,
        **more: Any,
    ) -> None:
        if (category, str(message)) not in told:
            told.add((category, str(message)))
            show(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.showwarning = once
        yield
