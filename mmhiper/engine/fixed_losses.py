"""The losses of a run on noise that stays the same."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from mmengine.dataset import pseudo_collate
from torch import Tensor

from mmhiper.engine.hooks.editor_of import editor_of

# What was measured last of a run, since several hooks ask for the same.
_LAST: WeakKeyDictionary[Any, tuple[tuple[int, int], Tensor | None]] = (
    WeakKeyDictionary()
)


def fixed_losses(runner: Any, step: int, draws: int) -> Tensor | None:
    """Measures an editor on noise that is the same at each call.

    Args:
        step: Iterations that are done.
        draws: Draws of noise, spread over the pictures.

    Returns:
        See :meth:`Editor.fixed_losses`, on the CPU.
    """
    known = _LAST.get(runner)
    if known is not None and known[0] == (step, draws):
        return known[1]
    dataset = runner.train_dataloader.dataset
    count = min(len(dataset), draws)
    batch = pseudo_collate([dataset[i] for i in range(count)])
    editor = editor_of(runner)
    data = editor.data_preprocessor(batch, training=False)
    losses = editor.fixed_losses(**data, draws=draws)
    losses = None if losses is None else losses.cpu()
    _LAST[runner] = ((step, draws), losses)
    return losses
