"""Following an editor that learns one timestep after another."""

from __future__ import annotations

import datetime
from typing import Any

from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Say how each timestep went, and end the run when all are done."""

    # Before the hooks of the last iteration (checkpoint, preview), which
    # then know that it is the last.
    priority = 'NORMAL'

    @override
    def before_train(self, runner: Any) -> None:
        """Do nothing more in a run that was resumed after its end."""
        if editor_of(runner).finished:
            runner.train_loop.end_after(runner.iter)

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Report a timestep that is done; end the run after the last."""
        editor = editor_of(runner)
        done = int(outputs['timestep'])  # the one in training, from 1
        if editor.position < done:
            return
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
            f'timestep {done} of {editor.num_steps} done after '
            f'{int(outputs["inner_step"])} inner steps: {terms}{time}'
        )
        if editor.finished:
            runner.train_loop.end_after(runner.iter + 1)
