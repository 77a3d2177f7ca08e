"""An end to a training that has become NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.errors import UserError


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stop at the first loss, or learned number, that is NaN or infinite.

    The loss is looked at in each iteration: for the log it is brought to the
    CPU anyhow. What was learned is looked at at an interval, at the end, and
    before each checkpoint, which then is not written: the last checkpoint is
    a finite one. Nothing waits for the device at each step.

    Args:
        interval (int): Iterations between two looks at what was learned.
            Defaults to 100.

    Raises:
        ValueError: If it is less than 1, or, from the hook, when a number is
            not finite.
    """

    # After the loss is noted (VERY_HIGH), before all that shows or saves it.
    priority = 'HIGH'

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise UserError(
                '`interval` of FiniteHook must be at least 1 iteration, but '
                f'got {interval}.'
            )
        self.interval = interval
        self._outputs: Mapping[str, Any] = {}
        # before the one that is about to be written is called the last
        self._last: str | None = None

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Look at the loss, and at the interval at what was learned.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Iteration, from 0.
            data_batch (Any): Unused.
            outputs (dict): What the editor's step returned.
        """
        # the first process tells, and ends the others
        if not is_main_process():
            return
        self._outputs = outputs or {}
        self._last = runner.message_hub.get_info('last_ckpt', None)
        losses = runner.message_hub.log_scalars.get('train/loss')
        if losses is not None and not math.isfinite(losses.current()):
            self._stop(runner, 'The loss', losses.current(), runner.iter + 1)
        if self.every_n_train_iters(runner, self.interval):
            self._check_learned(runner, runner.iter + 1)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuse a checkpoint of what is not finite.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint, not yet written.
        """
        self._check(runner, checkpoint['state_dict'], runner.iter + 1)

    def after_train(self, runner: Any) -> None:
        """Look at what was learned in the end.

        Args:
            runner (Runner): The runner.
        """
        if is_main_process():
            self._check_learned(runner, runner.iter)

    def _check_learned(self, runner: Any, iteration: int) -> None:
        """Looks at what was learned so far."""
        self._check(runner, editor_of(runner).state_dict(), iteration)

    def _check(
        self, runner: Any, state: Mapping[str, Tensor], iteration: int
    ) -> None:
        """Looks at tensors."""
        for name, tensor in state.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                wrong = tensor[~tensor.isfinite()].flatten()[0].item()
                self._stop(runner, f'`{name}`', wrong, iteration)

    def _stop(
        self, runner: Any, what: str, value: float, iteration: int
    ) -> NoReturn:
        """Ends the run.

        Raises:
            ValueError: Always; it says what happened and what to do.
        """
        kind = 'NaN' if math.isnan(value) else 'infinite'
        step = editor_of(runner).describe_step(self._outputs)
        kept = 'Nothing is'
        if self._last:
            kept = f'The last checkpoint, {self._last}, is'
        rates = sorted(
            {group['lr'] for group in runner.optim_wrapper.param_groups}
        )
        rate = ', '.join(f'{rate:g}' for rate in rates)
        raise UserError(
            f'{what} became {kind} at iteration {iteration}{step}; the run '
            f'was stopped. {kept} saved from before. Try a smaller learning '
            f'rate (optim_wrapper.optimizer.lr, now {rate}), or, if the '
            "backbone runs in half precision, model.sd.dtype='bf16' or "
            "'fp32'."
        )
