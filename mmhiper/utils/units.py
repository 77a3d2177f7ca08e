"""Sizes and times in words."""

from __future__ import annotations


def plain_size(num_bytes: float) -> str:
    """Says how large a file or a memory is.

    Returns:
        For instance '3.2 KB', in steps of 1000 as disks count.
    """
    units = ['bytes', 'KB', 'MB', 'GB', 'TB']
    while num_bytes >= 999.5 and len(units) > 1:
        num_bytes /= 1000
        units.pop(0)
    digits = 1 if num_bytes < 9.95 and units[0] != 'bytes' else 0
    return f'{num_bytes:.{digits}f} {units[0]}'


def plain_time(seconds: float) -> str:
    """Says how long something takes.

    Returns:
        For instance '0.4 s', '12 s', '3 min 5 s' or '2 h 10 min'.
    """
    if seconds < 9.95:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f'{rest} s'
    hours, left = divmod(minutes, 60)
    return f'{hours} h {left} min' if hours else f'{minutes} min {rest} s'
