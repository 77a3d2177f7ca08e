"""The losses of all iterations, read from the device once in a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer
from torch import Tensor
from typing_extensions import override

from mmhiper.registry import HOOKS


@HOOKS.register_module()
class LazyRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook, which no iteration waits for.

    MMEngine's own reads every loss of every iteration, and so has the CPU
    wait until the device is done with it. This one leaves them on the device
    until somebody looks at the history: the logger at its interval, a
    checkpoint, the curve at the end. Who looks finds the same numbers.
    """

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Note what the model put out, without reading it."""
        hub = runner.message_hub
        for name, value in (outputs or {}).items():
            key = f'train/{name}'
            history = hub.log_scalars.get(key)
            if isinstance(history, LazyHistory) and isinstance(value, Tensor):
                history.put(value)
                continue
            # the first of a run: MMEngine notes that it is to be resumed
            hub.update_scalar(key, value)
            if not isinstance(history, LazyHistory):
                hub.log_scalars[key] = LazyHistory(hub.log_scalars[key])


class LazyHistory(HistoryBuffer):
    """A history that takes tensors, and reads them when it is read.

    A copy of it, as in a checkpoint, is MMEngine's own.

    Args:
        start: What is known already.
    """

    def __init__(self, start: HistoryBuffer) -> None:
        self._pending: list[Tensor] = []
        super().__init__(*start.data, start.max_length)

    def put(self, value: Tensor) -> None:
        """Takes the value of an iteration.

        Args:
            value: One number, on any device.
        """
        # a copy: a compiled step may use the memory again
        self._pending.append(value.detach().reshape(()).clone())

    @property
    def _log_history(self) -> np.ndarray:
        """All values; what the methods of the base class look at first."""
        if self._pending:
            # the first waits; the device is done with most of them
            values = [each.item() for each in self._pending]
            self._pending.clear()
            for value in values:
                self.update(value)
        return self._read

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self._read = values

    def __reduce__(self) -> tuple:
        """Copies and pickles as MMEngine's own, which needs no package."""
        return HistoryBuffer, (*self.data, self.max_length)
