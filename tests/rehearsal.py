"""A rehearsal of an accelerator on a machine without one.

A model on the ``meta`` device has shapes and no numbers, so what needs a
number from it, or mixes it with tensors on the CPU, fails as it would wait or
fail on CUDA. PyTorch refuses much of this by itself; inside a
:class:`Rehearsal` the rest is refused too, and what may be read at the end of
a run (a picture, a loss for the log) is answered and counted by its place.

Not seen are kernels that wait inside, as those of ``torch.linalg`` do.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mmhiper

aten = torch.ops.aten
PACKAGE = Path(mmhiper.__file__).parent
# They make a tensor of numbers that Python has, on the device that is named.
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)
# Of operations whose result, or its shape, depends on the numbers.
NEEDS_NUMBERS = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
}


class Rehearsal(TorchDispatchMode):
    """Refuses, or counts, what would make the CPU wait for the device.

    The CPU waits where it reads a number or a tensor, and where it copies
    one to the device other than by ``non_blocking=True``.

    Args:
        *places (str): Functions of the package that may wait themselves, as
            'module.function'. All others raise an AssertionError.
        reads (float): The number that is read, wherever one may be.

    Attributes:
        waits (Counter[str]): How often each of them did.
    """

    def __init__(self, *places: str, reads: float = 0.0) -> None:
        super().__init__()
        self.places = places
        self.reads = reads
        self.waits: Counter[str] = Counter()
        self._functions = _Uploads(self)

    def __enter__(self) -> Rehearsal:
        self._functions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)

    def wait(self, why: str) -> None:
        """Counts a wait, or refuses it."""
        place = _place()
        if place not in self.places:
            raise AssertionError(f'{why} in {place}')
        self.waits[place] += 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
        operation = func.overloadpacket
        if operation is aten._to_copy:
            device = kwargs.get('device') or args[0].device
            if self._copies(args[0], device, kwargs.get('non_blocking')):
                dtype = kwargs.get('dtype') or args[0].dtype
                return torch.zeros(args[0].shape, dtype=dtype)
        elif operation is aten.copy_:
            if self._copies(args[1], args[0].device, any(args[2:])):
                return args[0].zero_()
        elif any(each.is_meta for each in tensors):
            if operation is aten._local_scalar_dense:
                self.wait('a number is read')
                return torch.tensor(self.reads, dtype=args[0].dtype).item()
            self._check(func, tensors)
        return func(*args, **kwargs)

    def _copies(
        self, source: torch.Tensor, target: torch.device, non_blocking: bool
    ) -> bool:
        """Waits as a copy does; whether it comes from the device."""
        reads = source.is_meta and target.type != 'meta'
        writes = target.type == 'meta' and not source.is_meta
        if reads:
            self.wait('a tensor is read')
        if writes and not non_blocking:
            self.wait('a copy to the device blocks')
        return reads

    def _check(self, func: Any, tensors: list[torch.Tensor]) -> None:
        """Refuses an operation on the device that cannot go ahead alone."""
        scalars = all(each.ndim == 0 for each in tensors if not each.is_meta)
        assert scalars, f'{func} mixes devices in {_place()}'
        if func.overloadpacket is aten.index:  # by numbers, or by a mask
            masks = any(each.dtype == torch.bool for each in tensors[1:])
            assert not masks, f'a mask is an index in {_place()}'
        else:
            needs = NEEDS_NUMBERS & set(func.tags)
            assert not needs, f'{func} needs numbers in {_place()}'


class _Uploads(TorchFunctionMode):
    """Sees numbers of Python that become tensors of the device.

    On CUDA they are copied there, which blocks; for the meta device a tensor
    of their shape is made at once.
    """

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.rehearsal = rehearsal

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in MAKERS:
            device = torch.device(kwargs.get('device') or 'cpu')
            if device.type == 'meta':
                self.rehearsal.wait('numbers of Python go to the device')
        elif func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            listed = any(isinstance(p, list | np.ndarray) for p in parts)
            if args[0].is_meta and listed:
                self.rehearsal.wait('a list is an index')
        return func(*args, **kwargs)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among the arguments of an operation."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _place() -> str:
    """The innermost function of the package that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        # a comprehension may be a function of its own, or not
        if path.is_relative_to(PACKAGE) and not name.startswith('<'):
            return f'{path.stem}.{name}'
        frame = frame.f_back
    return 'no function of the package'
