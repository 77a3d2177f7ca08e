"""A progress bar in place of log lines."""

from __future__ import annotations

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.progress import progress_bar


@HOOKS.register_module()
class ProgressBarHook(ChecksArguments, Hook):
    """Show the iterations as one progress bar with the time left.

    Args:
        description: Words before the bar. Defaults to 'training'.
    """

    # After the hooks that take time, so that the bar counts them.
    priority = 'LOWEST'

    def __init__(self, description: str = 'training') -> None:
        self.description = description

    @override
    def before_train(self, runner: Any) -> None:
        """Open the bar at the iteration where the run starts."""
        self.bar = progress_bar(
            total=runner.max_iters,
            initial=runner.iter,
            desc=self.description,
            disable=not is_main_process(),
            dynamic_ncols=True,
        )

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Advance the bar by one."""
        self.bar.update()

    @override
    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        self.bar.close()
