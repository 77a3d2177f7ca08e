"""An end to a training that gets no better."""

from __future__ import annotations

from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from typing_extensions import override

from mmhiper.engine.fixed_losses import fixed_losses
from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.engine.loops import end_after
from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.errors import UserError

LOSSES = 'plateau/fixed_loss'  # in the message hub, and so in checkpoints


@HOOKS.register_module()
class PlateauHook(ChecksArguments, Hook):
    """End a run once the loss on fixed noise falls no more.

    The editor's loss on noise that is the same each time
    (``editor.fixed_losses``) is measured at an interval; with the interval and
    draws of ``LossCurveHook`` that costs nothing more. The run ends, as if it
    had been meant to be that long, when none of the last ``patience``
    measurements is below the lowest before them by ``min_delta``. They are in
    checkpoints, so a resumed run ends where an uninterrupted one does.

    Args:
        interval: Iterations between two measurements. Defaults to 100.
        patience: Measurements without progress that end it. Defaults to 3.
        min_delta: Share, in [0, 1), of the lowest loss that is progress.
            Defaults to 0.01.
        draws: See ``LossCurveHook``. Defaults to 16.

    Raises:
        ValueError: If a number is out of its range; from the hook, if the
            editor has no such losses, or the run is by epochs.

    Note:
        MMEngine's ``EarlyStoppingHook`` follows the metric of a validation,
        and leaves the last iteration without checkpoint and preview.
    """

    # After the mean is taken (ABOVE_NORMAL), before hooks of the last
    # iteration (checkpoint, preview), which then know that it is the last.
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 100,
        patience: int = 3,
        min_delta: float = 0.01,
        draws: int = 16,
    ) -> None:
        for name, number in (
            ('interval', interval),
            ('patience', patience),
            ('draws', draws),
        ):
            if number < 1:
                raise UserError(
                    f'`{name}` of PlateauHook must be at least 1, but got '
                    f'{number}.'
                )
        if not 0 <= min_delta < 1:
            raise UserError(
                '`min_delta` of PlateauHook is a share and must be in [0, 1), '
                f'but got {min_delta}.'
            )
        self.interval = interval
        self.patience = patience
        self.min_delta = min_delta
        self.draws = draws

    @override
    def before_train(self, runner: Any) -> None:
        """Measure where it starts; end what was resumed after its end."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise UserError(
                'PlateauHook needs a run by iterations: train_cfg=dict(type='
                "'IterBasedTrainLoop', max_iters=...)."
            )
        if runner.iter == 0:
            self._measure(runner, 0)
        if self._is_flat(runner):
            end_after(runner.train_loop, runner.iter)

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Measure at every ``interval`` iterations; end the run."""
        done = runner.iter + 1
        if not self.every_n_train_iters(runner, self.interval):
            return
        self._measure(runner, done)
        if self._is_flat(runner) and done < runner.max_iters:
            runner.logger.info(
                f'The loss on fixed noise has not fallen by '
                f'{self.min_delta:.1%} in {self.patience * self.interval} '
                f'iterations: the run ends at {done} of {runner.max_iters}.'
            )
            end_after(runner.train_loop, done)

    def _measure(self, runner: Any, step: int) -> None:
        """Notes the loss, the same in all processes."""
        found: list[float | None] = [None]
        if is_main_process():
            losses = fixed_losses(runner, step, self.draws)
            found = [None if losses is None else losses.mean().item()]
        broadcast_object_list(found)
        if found[0] is None:
            raise UserError(
                f'{type(editor_of(runner)).__name__} has no losses on fixed '
                'noise, by which PlateauHook ends a run: leave it out.'
            )
        runner.message_hub.update_scalar(LOSSES, found[0])

    def _is_flat(self, runner: Any) -> bool:
        """Whether the last measurements show no progress."""
        buffer = runner.message_hub.log_scalars.get(LOSSES)
        losses = [] if buffer is None else buffer.data[0].tolist()
        if len(losses) <= self.patience:
            return False
        before = min(losses[: -self.patience])
        return min(losses[-self.patience :]) > (1 - self.min_delta) * before
