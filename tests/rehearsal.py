"""A rehearsal of an accelerator on a machine without one.

A model on the ``meta`` device has shapes and no numbers, so what needs a
number from it, or mixes it with tensors on the CPU, fails as it would wait or
fail on CUDA. PyTorch refuses most of this by itself; inside a
:class:`Rehearsal` the rest is refused too, and what may be read at the end of
a run (a picture, a loss for the log) is answered and counted by its place.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mmhiper

aten = torch.ops.aten
PACKAGE = Path(mmhiper.__file__).parent
# They make a tensor of numbers that Python has, on the device that is named.
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)


class Rehearsal(TorchDispatchMode):
    """Refuses, or counts, what would make the CPU wait for the device.

    The CPU waits where it reads a number or a tensor, and where it copies
    one to the device and not by ``non_blocking=True``.

    Args:
        *places (str): Functions of the package that may wait themselves, as
            'module.function'. All others raise an error.

    Attributes:
        waits (Counter[str]): How often each of them did.
    """

    def __init__(self, *places: str) -> None:
        super().__init__()
        self.places = places
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
        tensors = [
            each
            for each in tree_leaves((args, kwargs))
            if isinstance(each, torch.Tensor)
        ]
        there = [each for each in tensors if each.is_meta]
        here = [each for each in tensors if not each.is_meta]
        name = func.overloadpacket
        if name is aten._to_copy:
            return self._copy(func, args, kwargs)
        if name is aten.copy_:
            target, source = args[:2]
            if target.is_meta and not source.is_meta:
                if not (args[2:] or [kwargs.get('non_blocking')])[0]:
                    self.wait('a copy to the device that blocks')
                return target
            if source.is_meta and not target.is_meta:
                self.wait('a copy from the device')
                return target
        elif there and name is aten._local_scalar_dense:
            self.wait('a number of the device is read')
            return torch.zeros((), dtype=there[0].dtype).item()
        elif there and any(each.ndim for each in here):
            raise AssertionError(f'{func} mixes devices')
        return func(*args, **kwargs)

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A tensor on its way between the devices."""
        (source,) = args
        device = kwargs.get('device')
        if device is None or (device.type == 'meta') == source.is_meta:
            return func(*args, **kwargs)
        if source.is_meta:
            self.wait('a copy from the device')
            return torch.zeros(
                source.shape, dtype=kwargs.get('dtype') or source.dtype
            )
        if not kwargs.get('non_blocking'):
            self.wait('a copy to the device that blocks')
        return func(*args, **kwargs)


class _Uploads(TorchFunctionMode):
    """Sees numbers of Python that become tensors of the device.

    On CUDA they are copied there, which blocks; the meta device makes empty
    tensors of their shape at once.
    """

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.rehearsal = rehearsal

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func in MAKERS and not isinstance(args[0], torch.Tensor)
        if made and torch.device(kwargs.get('device') or 'cpu').type == 'meta':
            self.rehearsal.wait('a tensor is made of numbers of Python')
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if args[0].is_meta and any(isinstance(p, list) for p in parts):
                self.rehearsal.wait('a list is an index')
        return func(*args, **kwargs)


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
