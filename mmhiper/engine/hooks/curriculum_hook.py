"""Walking the timesteps of an editor that learns one after another."""

from __future__ import annotations

import datetime
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Advance an editor's curriculum, and end the run when it is done.

    After each iteration the editor says whether its timestep is done. If so,
    it advances, what the optimizer remembers of the finished timestep is
    dropped (a checkpoint holds what is still needed), the learning rate
    becomes that of the next one, and one line says how it went.
    """

    # Before the checkpoint (VERY_LOW), which then holds the new position.
    priority = 'NORMAL'

    def before_run(self, runner: Any) -> None:
        """Refuse several processes.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If there is more than one.
        """
        if get_world_size() > 1:
            raise ValueError(
                'Every timestep of one picture starts where the one before '
                'ended, so several processes cannot share it: train with '
                'one. Several pictures are spread over processes by '
                'tools/edit_cases.py.'
            )

    def before_train(self, runner: Any) -> None:
        """Start, or go on, where the editor is.

        Args:
            runner (Runner): The runner, just resumed or new.
        """
        if editor_of(runner).finished:  # resumed after the end
            runner.train_loop.end_after(runner.iter)
        self._set_rate(runner)

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Count the optimisation step; advance when the timestep is done.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Iteration, from 0.
            data_batch (Any): Unused.
            outputs (dict): What the editor's loss returned.
        """
        editor = editor_of(runner)
        if not editor.end_inner_step(outputs['loss'].item()):
            return
        self._report(runner, editor, outputs)
        for parameter in editor.active_parameters():
            runner.optim_wrapper.optimizer.state.pop(parameter, None)
        editor.advance()
        self._set_rate(runner)
        if editor.finished:
            runner.train_loop.end_after(runner.iter + 1)

    def _set_rate(self, runner: Any) -> None:
        """The rate of the config times that of the timestep."""
        rate = editor_of(runner).rate
        for group in runner.optim_wrapper.param_groups:
            group.setdefault('initial_lr', group['lr'])
            group['lr'] = group['initial_lr'] * rate

    def _report(self, runner: Any, editor: Any, outputs: dict) -> None:
        """One line on a timestep that is done."""
        terms = ', '.join(
            f'{name} {outputs[name].item():.2e}'
            for name in ('latent', 'attention')
            if name in outputs
        )
        left = runner.message_hub.get_info('eta', None)
        time = ''
        if left is not None:
            span = datetime.timedelta(seconds=int(left))
            time = f', at most {span} left'
        runner.logger.info(
            f'timestep {editor.position + 1} of {editor.num_steps} done '
            f'after {editor.inner_step} inner steps: {terms}{time}'
        )
