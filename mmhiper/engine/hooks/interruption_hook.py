"""Stopping between two iterations, with a checkpoint."""

from __future__ import annotations

import time
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from torch import distributed
from typing_extensions import override

from mmhiper.interruption import STOP
from mmhiper.registry import HOOKS

_KEY = 'mmhiper/last_iteration'
# Seconds in which the first process says when all stop.
_PATIENCE = 5


@HOOKS.register_module()
class InterruptionHook(Hook):
    """Have a run that gets a signal finish its iteration, save, and stop.

    ``train`` adds it to each run. While iterations run a signal is only
    noted; then ``CheckpointHook`` saves that iteration and the next does not
    begin. Several processes stop after the same one.
    """

    # Before the checkpoint (VERY_LOW), which asks whether to save.
    priority = 'LOW'

    def __init__(self) -> None:
        self._last: int | None = None
        self._since = 0.0

    @override
    def before_train_epoch(self, runner: Any) -> None:
        """Have signals noted from now on."""
        STOP.careful = True

    @override
    def before_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Stop, once the last iteration is saved.

        Raises:
            KeyboardInterrupt: If this iteration is not to be.
        """
        if STOP.due:
            raise KeyboardInterrupt

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Decide whether this iteration was the last."""
        if STOP.signum is not None:
            STOP.due = get_world_size() == 1 or self._all_stop(runner.iter + 1)

    @override
    def after_train_epoch(self, runner: Any) -> None:
        """Stop before what is drawn at the end of a run.

        Raises:
            KeyboardInterrupt: If a signal came.
        """
        STOP.careful = False
        if STOP.signum is not None:
            raise KeyboardInterrupt

    def _all_stop(self, done: int) -> bool:
        """Whether all processes stop after this iteration."""
        # An iteration ends in all of them or in none, since they add up their
        # gradients. So the first one says, in the store that they share, that
        # the next is the last; by its end the others can read that.
        # True as well for a process that alone was told to stop.
        store = distributed.distributed_c10d._get_default_store()
        self._since = self._since or time.monotonic()
        try:
            if self._last is None and is_main_process():
                self._last = done + 1
                store.set(_KEY, str(self._last))
            elif self._last is None and store.check([_KEY]):
                self._last = int(store.get(_KEY))
        except RuntimeError:  # the store has ended with the launcher
            return is_main_process()
        if self._last is None:
            return time.monotonic() - self._since > _PATIENCE
        return done >= self._last
