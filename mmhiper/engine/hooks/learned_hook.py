"""Whether a run has learned something, in a line."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from torch import Tensor
from typing_extensions import override

from mmhiper.engine.fixed_losses import fixed_losses
from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.errors import UserError

DRAWS = 16  # as the loss curve has them, which shares what is measured
BEFORE = 'learned/before'  # in the message hub, and so in checkpoints
LEAST = 2.0  # standard errors that are no accident


@HOOKS.register_module()
class LearnedHook(Hook):
    """Say at the end of a run whether something was learned.

    The losses on noise that stays the same are compared before the first
    iteration and after the last one, draw by draw. Their mean change is told
    in units of its own noise, its standard error over the draws. An editor
    without such losses tells by those of the training.

    A run whose optimiser has no rate at all is refused at the start.
    """

    # Before what is saved at the beginning, after the losses of the curve.
    priority = 'LOW'

    @override
    def before_train(self, runner: Any) -> None:
        """Measure where the training starts.

        Raises:
            ValueError: If no learning rate of the optimiser is above 0.
        """
        self._first = runner.iter
        groups = runner.optim_wrapper.param_groups
        if not any(each.get('initial_lr', each['lr']) > 0 for each in groups):
            raise UserError(
                'All learning rates are 0 (`optim_wrapper.optimizer.lr` and '
                '`optim_wrapper.paramwise_cfg`), so nothing would ever be '
                'learned. Set one above 0.'
            )
        if runner.iter == 0:
            self._note(runner)

    @master_only
    def _note(self, runner: Any) -> None:
        losses = fixed_losses(runner, 0, DRAWS)
        if losses is not None:
            runner.message_hub.update_info(BEFORE, losses.tolist())

    @override
    @master_only
    def after_train(self, runner: Any) -> None:
        """Log the line."""
        if runner.iter == self._first:  # resumed after the end
            return
        after = fixed_losses(runner, runner.iter, DRAWS)
        if after is None:
            history = {
                name.removeprefix('train/'): torch.as_tensor(each.data[0])
                for name, each in runner.message_hub.log_scalars.items()
                if name.startswith('train/')
            }
            pair = editor_of(runner).losses_of_log(history)
            what = 'the loss of each timestep, first and last,'
        else:
            noted = runner.message_hub.get_info(BEFORE, None) or []
            pair = (torch.tensor(noted), after)
            what = 'the loss on fixed noise'
        if pair is None or len(pair[0]) != len(pair[1]):
            return  # resumed from a checkpoint that does not say
        runner.logger.info(describe_change(what, *pair))


def describe_change(what: str, before: Tensor, after: Tensor) -> str:
    """Says whether losses fell by more than their noise.

    Args:
        what: What they are.
        before: (n,).
        after: (n,), of the same draws.

    Returns:
        A sentence or two.
    """
    change = (after - before).double()
    mean = float(change.mean())
    noise = float(change.std() / len(change) ** 0.5) if len(change) > 1 else 0
    share = mean / noise if noise else 0.0
    numbers = (
        f'{what} went from {float(before.mean()):.4g} to '
        f'{float(after.mean()):.4g}, {mean:+.2g}, which is {abs(share):.1f} '
        f'times its own noise ({len(change)} of them)'
    )
    if share <= -LEAST:
        return f'Learned: {numbers}.'
    if share >= LEAST:
        return (
            f'Worse than where it began: {numbers}. Try a smaller learning '
            'rate (optim_wrapper.optimizer.lr).'
        )
    return (
        f'Nothing measurable was learned: {numbers}, and less than '
        f'{LEAST:g} may be chance. Train longer, or at a larger rate '
        '(train_cfg.max_iters, optim_wrapper.optimizer.lr).'
    )
