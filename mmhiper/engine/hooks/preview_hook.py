"""Pictures of how far the personalisation has come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from PIL import Image
from typing_extensions import override

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.engine.sources import sources_of
from mmhiper.interruption import STOP
from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import UserError
from mmhiper.utils.sheet import (
    MIN_PANEL,
    Panel,
    draw_sheet,
    read_panels,
    save_sheet,
)

COLUMNS = 4
GUIDANCE = ('guidance_scale', 'guidance_rescale', 'guidance_interval')
# Of the timeline; of more previews as many are chosen, evenly.
MAX_ROWS = 12


@HOOKS.register_module()
class PreviewHook(ChecksArguments, Hook):
    """Draw the editor's preview panels side by side as training goes.

    Writes ``<work_dir>/previews/iter_000100.png`` and hands the same
    picture to the visualizer as ``preview``, so that it is in TensorBoard or
    Weights & Biases where a backend is named. The first panels are what is
    learned from, see :func:`sources_of`; the others are the editor's business
    (``editor.preview()``): its own, and one for each of its ``val_prompts``.
    Sampling takes place between two iterations and draws from its own
    generators, so the learned embedding is the same with and without previews.
    At the end all previews, also those of the run that this one resumes, are
    put one under the other in ``<work_dir>/timeline.png``.

    Args:
        interval: Iterations between two previews. Defaults to 100. The last
            iteration always gets one.
        **guidance: What all panels are drawn with: ``guidance_scale``,
            ``guidance_rescale`` and ``guidance_interval`` of the editor's
            ``infer``, by default as there.

    Raises:
        ValueError: If an option is unknown or out of its range; of a number
            as soon as the training starts.
    """

    # After the checkpoint: a run killed while drawing has lost nothing.
    priority = 'LOWEST'

    def __init__(self, interval: int = 100, **guidance: Any) -> None:
        if interval < 1:
            raise UserError(
                '`interval` of PreviewHook must be at least 1 iteration, '
                f'but got {interval}.'
            )
        for name in guidance:
            if name not in GUIDANCE:
                raise UserError(
                    f'PreviewHook has no option {name!r}; it has `interval` '
                    f'and, for what it draws, {", ".join(GUIDANCE)}.'
                )
        self.interval = interval
        self.guidance = guidance

    @override
    def before_train(self, runner: Any) -> None:
        """Make up for a preview that a killed run did not come to draw."""
        # a mistake should not cost the iterations before the first preview
        editor_of(runner).guidance_of(**self.guidance)
        done = runner.iter
        due = done % self.interval == 0 or done == runner.max_iters
        if done and due and not _file(runner, done).is_file():
            self._draw(runner, done)

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Draw at every ``interval`` iterations and at the last one."""
        if self.every_n_train_iters(
            runner, self.interval
        ) or self.is_last_train_iter(runner):
            self._draw(runner, runner.iter + 1)

    @master_only
    def _draw(self, runner: Any, step: int) -> None:
        panels = self._panels(runner)
        if panels is None:
            return
        picture = draw_sheet(
            [
                panels[start : start + COLUMNS]
                for start in range(0, len(panels), COLUMNS)
            ]
        )
        path = _file(runner, step)
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            used = editor_of(runner).guidance_of(**self.guidance)
            save_sheet(picture, temporary, used.plain())
        runner.message_hub.update_info('last_preview', str(path))
        # No slash in the name: the local backend would write nothing.
        runner.visualizer.add_image('preview', np.array(picture), step)

    def _panels(self, runner: Any) -> list[Panel] | None:
        """What the preview shows; None if the run is told to stop."""
        # Drawing takes longer than many who stop a run wait, and is made up
        # for when the run is resumed.
        if STOP.signum is not None:
            return None
        try:
            with STOP.at_once():
                return self._drawn(runner)
        except BaseException:
            if STOP.signum is not None and STOP.careful:
                return None
            raise

    def _drawn(self, runner: Any) -> list[Panel]:
        """What is learned from, and what the editor makes of it."""
        editor = editor_of(runner)
        sources = sources_of(
            runner.train_dataloader.dataset, editor.data_preprocessor
        )
        panels = editor.preview(source=sources.pixels, **self.guidance)
        return [*sources.panels, *panels]

    @override
    @master_only
    def after_train(self, runner: Any) -> None:
        """Draw the timeline, if there are two previews or more."""
        # Of these steps alone: the folder may have previews of another run.
        steps = {*range(self.interval, runner.iter, self.interval)}
        steps = {*steps, runner.iter}
        found = sorted(step for step in steps if _file(runner, step).is_file())
        if len(found) < 2:
            return
        chosen = np.linspace(0, len(found) - 1, min(len(found), MAX_ROWS))
        files = {
            found[i]: _file(runner, found[i])
            for i in chosen.round().astype(int)
        }
        with atomic_path(Path(runner.work_dir, 'timeline.png')) as temporary:
            draw_timeline(files).save(temporary, format='PNG')


def _file(runner: Any, step: int) -> Path:
    # Zero-padded: file managers sort by name.
    return Path(runner.work_dir, 'previews', f'iter_{step:06d}.png')


def draw_timeline(files: dict[int, Path]) -> Image.Image:
    """Draw previews one under the other, each in one row.

    Args:
        files: Sheets of previews by their iterations.

    Returns:
        A row for each, with its iteration; captions stand where they differ
        from those of the row above.
    """
    rows: list[list[Panel]] = []
    captions: list[str] = []
    for step, file in files.items():
        panels = read_panels(file)
        for _, picture in panels:
            picture.thumbnail((MIN_PANEL, MIN_PANEL))
        before, captions = captions, [caption for caption, _ in panels]
        shown = [''] * len(panels) if captions == before else list(captions)
        shown[0] = f'iteration {step}' + (shown[0] and f': {shown[0]}')
        rows.append(
            [
                (caption, picture)
                for caption, (_, picture) in zip(shown, panels, strict=True)
            ]
        )
    return draw_sheet(rows)
