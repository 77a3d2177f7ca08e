"""A training loop whose end is found on the way."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop

from mmhiper.registry import LOOPS


def end_after(loop: IterBasedTrainLoop, iterations: int) -> None:
    """Ends a run early, as if it had been meant to be that long.

    So the last iteration is known as such, and its checkpoint and preview are
    made.

    Args:
        loop: Of the run.
        iterations: How many, not fewer than are done.
    """
    loop._max_iters = min(loop.max_iters, iterations)


@LOOPS.register_module()
class CurriculumLoop(IterBasedTrainLoop):
    """Iterates until ``CurriculumHook`` sees that all is learned.

    Args:
        runner: The runner; its editor knows how many iterations its curriculum
            can take (``max_iters``).
        dataloader: One picture.
        max_iters: At most as many iterations, by default what the curriculum
            can take.
        **options: Of MMEngine's loop.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int | None = None,
        **options: Any,
    ) -> None:
        if max_iters is None:
            model = runner.model
            editor = model.module if is_model_wrapper(model) else model
            max_iters = editor.max_iters
        super().__init__(runner, dataloader, max_iters, **options)

    def end_after(self, iterations: int) -> None:
        """See :func:`end_after`.

        Args:
            iterations: How many, not fewer than are done.
        """
        end_after(self, iterations)
