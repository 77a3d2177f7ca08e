"""Averaging what a run learns over its iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor
from typing_extensions import override

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.errors import UserError

KEY = 'iterate'  # in checkpoints


@HOOKS.register_module()
class AverageHook(ChecksArguments, Hook):
    """Have a run learn the mean of its last iterates, not the last alone.

    Steps of a constant learning rate on noisy gradients circle around what
    they look for; their mean lies nearer to it. Between two iterations the
    editor *is* the mean, so checkpoints, exports, previews and measured
    losses are of it; the optimiser goes on from its own iterate, which
    checkpoints hold beside, so a resumed run is the same run.

    Args:
        begin: Iterations before the first that counts. The mean is over all
            since then, each alike. Defaults to 0.
        momentum: Least weight, in [0, 1), of the newest iterate: 0.01 makes
            the mean an exponential one over about the last 100. Defaults to 0,
            all alike.

    Raises:
        ValueError: If a number is out of its range; from the hook, if the
            editor learns one thing after another, whose mean is none of them.

    Note:
        MMEngine's ``EMAHook`` keeps a second copy of the whole model, frozen
        parts included.
    """

    # Before the hooks that measure (NORMAL) and save (VERY_LOW).
    priority = 'ABOVE_NORMAL'

    def __init__(self, begin: int = 0, momentum: float = 0.0) -> None:
        if begin < 0:
            raise UserError(
                '`begin` of AverageHook must be at least 0 iterations, but '
                f'got {begin}.'
            )
        if not 0 <= momentum < 1:
            raise UserError(
                '`momentum` of AverageHook must be in [0, 1), but got '
                f'{momentum}.'
            )
        self.begin = begin
        self.momentum = momentum
        self._iterate: dict[str, Tensor] | None = None  # of the optimiser
        self._mean: dict[str, Tensor] = {}

    @override
    def before_train(self, runner: Any) -> None:
        """Take the iterate of a resumed run, if there is one."""
        if hasattr(runner.train_loop, 'end_after'):
            kind = type(editor_of(runner)).__name__
            raise UserError(
                f'AverageHook is of no use to {kind}, which learns one '
                'timestep after another: leave it out.'
            )
        own = _parameters(runner)
        if self._iterate is None:
            self._iterate = _copy(own)
        for name, tensor in own.items():
            found = self._iterate.get(name)
            if not isinstance(found, Tensor) or found.shape != tensor.shape:
                raise UserError(
                    f'The checkpoint has an `{KEY}` that does not belong to '
                    f'what is learned here: `{name}` is missing or of another '
                    'shape. Take another checkpoint of the run.'
                )

    @override
    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Remember where the optimiser of a resumed run was."""
        found = checkpoint.get(KEY)
        # what only starts from it starts from the mean
        if runner._resume and isinstance(found, Mapping):
            self._iterate = dict(found)

    @override
    def before_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Give the optimiser its iterate back."""
        assert self._iterate is not None
        own = _parameters(runner)
        self._mean = _copy(own)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(self._iterate[name])

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Take the new iterate into the mean."""
        own = _parameters(runner)
        self._iterate = _copy(own)
        count = runner.iter + 1 - self.begin
        if count <= 1:
            return  # the iterate itself
        weight = max(self.momentum, 1 / count)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(self._mean[name].lerp(tensor, weight))

    @override
    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note where the optimiser is."""
        iterate = self._iterate or {}
        checkpoint[KEY] = {name: each.cpu() for name, each in iterate.items()}


def _parameters(runner: Any) -> dict[str, Tensor]:
    """What is learned, by name."""
    return dict(editor_of(runner).named_parameters())


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that stay as they are."""
    return {name: each.detach().clone() for name, each in tensors.items()}
