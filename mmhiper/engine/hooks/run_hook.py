"""What a checkpoint says of the run that it is of."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.registry import HOOKS
from mmhiper.utils.errors import UserError


@HOOKS.register_module()
class RunHook(Hook):
    """Note the run in its checkpoints as ``meta['run']``; check its length.

    ``train`` adds it to each run.

    Args:
        run: Plain values: 'id', 'started', 'settings'.
        resumed: The checkpoint that the run goes on from; '' for none.
    """

    # After CurriculumHook (NORMAL), which knows how long the run can be;
    # before the checkpoint hooks, which ask for the last checkpoint.
    priority = 'LOW'

    def __init__(self, run: dict[str, Any], resumed: str = '') -> None:
        self.run = run
        self.resumed = resumed

    @override
    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note the run."""
        checkpoint['meta']['run'] = self.run

    @override
    def before_train(self, runner: Any) -> None:
        """Refuse to be shorter than what is done.

        Raises:
            ValueError: If more iterations are done than the run is to have.
        """
        if not self.resumed:
            return
        # not where it was when it was written
        runner.message_hub.update_info('last_ckpt', self.resumed)
        if runner.iter > runner.max_iters:
            raise UserError(
                f'{self.resumed!r} has {runner.iter} iterations, but '
                f'`max_iters` is {runner.max_iters}: there is nothing to '
                'resume. Give more iterations, a checkpoint with fewer '
                '(--resume PATH), or leave out --resume to start anew.'
            )
