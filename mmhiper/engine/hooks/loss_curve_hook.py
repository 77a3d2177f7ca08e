"""A picture of the loss, with a measure of it that is not noisy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.engine.fixed_losses import fixed_losses
from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In the message hub, and so in checkpoints. No prefix 'train': the logger
# would take a mean over its last values.
LOSSES, STEPS = 'curve/fixed_loss', 'curve/step'
# Iterations of the running mean, at most.
WINDOW = 100

Curve = tuple[np.ndarray, np.ndarray]


@HOOKS.register_module()
class LossCurveHook(ChecksArguments, Hook):
    """Draw ``<work_dir>/loss.png`` at the end of a run.

    The loss of an iteration depends on its random timestep and noise more
    than on progress. So the editor's loss is also measured on noise that is
    the same each time (``editor.fixed_losses``), before the first iteration
    and at an interval; it is handed to the visualizer as ``fixed_loss``. The
    training does not notice: nothing is drawn from its generators. A resumed
    run shows the whole curve.

    Args:
        interval: Iterations between two measurements. Defaults to 100.
        draws: Draws of noise in each, spread over the pictures and, evenly,
            over the timesteps. A draw costs one pass through the U-Net without
            gradients. Defaults to 16.

    Raises:
        ValueError: If a number is less than 1.
    """

    # After the loss is noted (VERY_HIGH), before the checkpoint (VERY_LOW),
    # which then holds the measurement.
    priority = 'LOW'

    def __init__(self, interval: int = 100, draws: int = 16) -> None:
        for name, number in (('interval', interval), ('draws', draws)):
            if number < 1:
                raise UserError(
                    f'`{name}` of LossCurveHook must be at least 1, but got '
                    f'{number}.'
                )
        self.interval = interval
        self.draws = draws

    @override
    def before_train(self, runner: Any) -> None:
        """Measure where the training starts."""
        if runner.iter == 0:
            self._measure(runner, 0)

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Measure at every ``interval`` iterations and at the last one."""
        if self.every_n_train_iters(
            runner, self.interval
        ) or self.is_last_train_iter(runner):
            self._measure(runner, runner.iter + 1)

    @master_only
    def _measure(self, runner: Any, step: int) -> None:
        losses = fixed_losses(runner, step, self.draws)
        if losses is None:
            return
        loss = losses.mean().item()
        runner.message_hub.update_scalar(LOSSES, loss)
        runner.message_hub.update_scalar(STEPS, step)
        runner.visualizer.add_scalar('fixed_loss', loss, step)

    @override
    @master_only
    def after_train(self, runner: Any) -> None:
        """Draw the curves."""
        history = runner.message_hub.log_scalars
        if 'train/loss' not in history:  # resumed after the end
            return
        losses = history['train/loss'].data[0]
        last = runner.iter
        steps = np.arange(last - len(losses) + 1, last + 1)
        fixed = None
        if LOSSES in history:
            fixed = (history[STEPS].data[0], history[LOSSES].data[0])
        figure = draw_curves((steps, losses), fixed)
        with atomic_path(Path(runner.work_dir, 'loss.png')) as temporary:
            figure.savefig(temporary, format='png')


def draw_curves(losses: Curve, fixed: Curve | None = None) -> Figure:
    """Draw the loss of each iteration, and that on fixed noise beside it.

    Args:
        losses: Iterations and losses, (n,).
        fixed: Likewise, (m,).

    Returns:
        1000 x 400 pixels with both, else 600 x 400.
    """
    from matplotlib.figure import Figure

    # no pyplot: its state is global, and it asks for a display
    figure = Figure((10 if fixed else 6, 4), dpi=100, layout='constrained')
    axes = figure.subplots(1, 2 if fixed else 1, squeeze=False)[0]
    steps, values = losses
    axes[0].plot(steps, values, '.', color='0.75', ms=3, label='one iteration')
    if values.min() > 0 and values.max() / values.min() > 1000:
        axes[0].set_yscale('log')
    window = min(WINDOW, len(values) // 5)
    if window > 1:
        mean = np.convolve(values, np.full(window, 1 / window), 'valid')
        axes[0].plot(
            steps[window - 1 :], mean, label=f'mean of the last {window}'
        )
    axes[0].set_title('Training loss')
    axes[0].legend()
    if fixed:
        axes[1].plot(*fixed, '.-')
        axes[1].set_title('Loss on the same timesteps and noise each time')
    for each in axes:
        each.set_xlabel('iteration')
        each.grid(alpha=0.3)
    return figure
