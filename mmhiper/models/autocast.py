"""Frozen parts compute in their own precision, also under ``--amp``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def no_autocast(device: torch.device) -> Iterator[None]:
    """Runs frozen parts in their own precision, also under ``--amp``.

    Args:
        device: Where they run.

    Yields:
        None
    """
    if not torch.amp.is_autocast_available(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield
