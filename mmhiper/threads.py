"""How the threads of torch wait for each other on the CPU.

At the end of each operation GNU OpenMP has them wait at full speed, in case
the next one comes soon. Beside another program that takes the cores from the
very threads that are waited for, and a training takes many times as long. So
they are to wait like that for a moment, and sleep after it.
``tools/benchmarks/busy_machine.py`` measures what that costs and brings.

This module imports nothing of weight: it has to be asked before torch is.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

SPINS = 10_000  # looks at a barrier before a thread sleeps
COUNT, POLICY = 'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'
# Where neither is set, GNU OpenMP has 300,000 for a program alone.
_MANY = 100_000
_UNITS = {'k': 1e3, 'm': 1e6, 'g': 1e9, 't': 1e12}


def bound_spin() -> None:
    """Has threads sleep soon, in a program that has torch still to load.

    Every way into this project calls it first; importing the package does
    not. Where the user has said how threads wait, that stays.
    """
    given = any(name in os.environ for name in (COUNT, POLICY))
    if not given and 'torch' not in sys.modules:
        os.environ[COUNT] = str(SPINS)


def spins_long() -> bool:
    """Whether threads of this process wait at full speed for long.

    Returns:
        As the environment says; False where torch has no GNU OpenMP.
    """
    maps = Path('/proc/self/maps')
    if not maps.is_file() or 'libgomp' not in maps.read_text(
        'utf-8', 'replace'
    ):
        return False
    if COUNT in os.environ:
        return _number(os.environ[COUNT]) > _MANY
    return os.environ.get(POLICY, '').strip().upper() != 'PASSIVE'


def _number(text: str) -> float:
    """A count as GNU OpenMP reads it; what it cannot read is its default."""
    text = text.strip().lower()
    if text in ('infinite', 'infinity'):
        return math.inf
    digits = text.rstrip('kmgt ')
    unit = _UNITS.get(text[len(digits) :].strip(), 1.0)
    return int(digits) * unit if digits.isdecimal() else math.inf
