"""Pictures of how far the personalisation has come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.sheet import draw_sheet


@HOOKS.register_module()
class PreviewHook(Hook):
    """Draw the editor's preview panels side by side as training goes.

    Writes ``<work_dir>/previews/iter_000100.png`` and hands the same
    picture to the visualizer as ``preview``. What the panels are is the
    editor's business (``editor.preview()``). Sampling takes place between
    two iterations and draws from its own generators, so the learned
    embedding is the same with and without previews.

    Args:
        interval (int): Iterations between two previews. Defaults to 100.
            The last iteration always gets one.
    """

    # After the checkpoint: a run killed while drawing has lost nothing.
    priority = 'LOWEST'

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(
                '`interval` of PreviewHook must be at least 1 iteration, '
                f'but got {interval}.'
            )
        self.interval = interval

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Draw at every ``interval`` iterations and at the last one.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Iteration, from 0.
            data_batch (Any): Unused.
            outputs (Any): Unused.
        """
        if self.every_n_train_iters(
            runner, self.interval
        ) or self.is_last_train_iter(runner):
            self._draw(runner)

    @master_only
    def _draw(self, runner: Any) -> None:
        step = runner.iter + 1
        picture = draw_sheet([editor_of(runner).preview()])
        folder = Path(runner.work_dir, 'previews')
        folder.mkdir(exist_ok=True)
        # Zero-padded: file managers sort by name.
        path = folder / f'iter_{step:06d}.png'
        with atomic_path(path) as temporary:
            picture.save(temporary, format='PNG')
        runner.message_hub.update_info('last_preview', str(path))
        # No slash in the name: the local backend would write nothing.
        runner.visualizer.add_image('preview', np.array(picture), step)
