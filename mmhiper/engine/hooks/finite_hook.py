"""An end to a training that has become NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.errors import UserError


@HOOKS.register_module()
class FiniteHook(ChecksArguments, Hook):
    """Stop at the first loss, or learned number, that is NaN or infinite.

    Losses and what was learned are looked at at an interval, at the end, and
    before each checkpoint, which then is not written: the last checkpoint is
    a finite one. No iteration waits for the device in between. All losses are
    looked at, so the first wrong one is found.

    Args:
        interval: Iterations between two looks. Defaults to 100.

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
        self._looked_at = 0  # iterations
        # before the one that is about to be written is called the last
        self._last: str | None = None

    @override
    def before_train(self, runner: Any) -> None:
        """Begin to look where the run begins."""
        self._looked_at = runner.iter

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Look at the interval."""
        self._last = runner.message_hub.get_info('last_ckpt', None)
        # the first process tells, and ends the others
        if is_main_process() and self.every_n_train_iters(
            runner, self.interval
        ):
            self._check(runner, runner.iter + 1)

    @override
    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuse a checkpoint of what is not finite."""
        self._check(runner, checkpoint['meta']['iter'])

    @override
    def after_train(self, runner: Any) -> None:
        """Look at what came of it."""
        if is_main_process():
            self._check(runner, runner.iter)

    def _check(self, runner: Any, done: int) -> None:
        """Looks at the new losses, then at what was learned."""
        history = {
            name.removeprefix('train/'): buffer.data[0]
            for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith('train/')
        }
        new = done - self._looked_at
        self._looked_at = done
        losses = history.get('loss', np.zeros(0))[-new:] if new else []
        for place in np.flatnonzero(~np.isfinite(losses))[:1]:
            back = len(losses) - int(place)  # from the end
            log = {k: v[-back] for k, v in history.items() if len(v) >= back}
            self._stop(runner, 'The loss', log['loss'], done - back, log)
        for name, tensor in editor_of(runner).state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                wrong = tensor[~tensor.isfinite()].flatten()[0].item()
                log = {k: v[-1] for k, v in history.items() if len(v)}
                self._stop(runner, f'`{name}`', wrong, done - 1, log)

    def _stop(
        self,
        runner: Any,
        what: str,
        value: float,
        iteration: int,
        log: Mapping[str, float],
    ) -> NoReturn:
        """Ends the run."""
        kind = 'NaN' if math.isnan(value) else 'infinite'
        step = editor_of(runner).describe_step(iteration, log)
        kept = 'Nothing is'
        if self._last:
            kept = f'The last checkpoint, {self._last}, is'
        groups = runner.optim_wrapper.param_groups
        rates = sorted({group['lr'] for group in groups})
        rate = ', '.join(f'{rate:g}' for rate in rates)
        raise UserError(
            f'{what} became {kind} at iteration {iteration + 1}{step}; the '
            f'run was stopped. {kept} saved from before. Try a smaller '
            f'learning rate (optim_wrapper.optimizer.lr, now {rate}), or, if '
            "the backbone runs in half precision, model.sd.dtype='bf16' or "
            "'fp32'."
        )
