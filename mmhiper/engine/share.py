"""Which part of many images a process has."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from mmhiper.utils.errors import UserError

T = TypeVar('T')
_DAYS = 30  # that the fastest process waits for the slowest


@dataclass(frozen=True)
class Share:
    """A part of a list, the same in every start with as many parts.

    Attributes:
        number: Of this part, from 0.
        count: Of all parts.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str | None = None) -> Share:
        """The part of this process.

        Args:
            text: Part of a machine, such as '0/4'; by default all. The
                processes that ``torch.distributed.run`` has started divide it
                among themselves.

        Returns:
            A part.

        Raises:
            ValueError: If the text is none.
        """
        number, count = _numbers(text)
        rank, processes = (
            int(os.environ.get(name, default))
            for name, default in (('RANK', 0), ('WORLD_SIZE', 1))
        )
        if processes > 1 and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
        return cls(number * processes + rank, count * processes)

    @property
    def lock(self) -> str:
        """The name of a file that one process of this part has open."""
        return f'.run-{self.number}-of-{self.count}.lock'

    def take(self, items: Sequence[T]) -> list[T]:
        """The items of this part, every ``count``-th."""
        return list(items[self.number :: self.count])


def _numbers(text: str | None) -> tuple[int, int]:
    """The two numbers of a share."""
    if text is None:
        return 0, 1
    found = re.fullmatch(r'(\d{1,6})/(\d{1,6})', text)
    if found is None or int(found[1]) >= int(found[2]):
        raise UserError(
            'A share must be NUMBER/COUNT with the numbers from 0, such as '
            f'0/4 for the first of four, but got {text!r}.'
        )
    return int(found[1]), int(found[2])


def wait_for_others() -> bool:
    """Waits until all processes of the launcher are as far.

    The launcher ends the others when one ends with an error, of one image for
    instance.

    Returns:
        Whether this is the first of them.
    """
    # without a launcher nobody ends them, and there is no place to meet
    launched = 'MASTER_ADDR' in os.environ
    if launched and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        # no collective before: they need nothing of each other
        distributed.init_process_group('gloo', timeout=timedelta(days=_DAYS))
        distributed.barrier()
        distributed.destroy_process_group()
    return int(os.environ.get('RANK', 0)) == 0
