"""Pictures of how far the personalisation has come."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
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
DRAWING = (*GUIDANCE, 'num_inference_steps', 'scheduler')
SHARE = 0.15  # of the work of a training that its previews may add
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
        interval: Iterations between two previews. The last iteration always
            gets one. Defaults to as many as ``share`` pays for, at iterations
            that have a checkpoint.
        share: Of the work of the training that they may add where no interval
            is given, in passes through the U-Net, see :meth:`Editor.costs`.
            Defaults to 0.15; one is drawn in any case.
        **drawing: What all panels are drawn with: ``guidance_scale``,
            ``guidance_rescale`` and ``guidance_interval`` of the editor's
            ``infer``, by default as there; ``scheduler``, likewise; and
            ``num_inference_steps``, by default of the editor's ``preview``.

    Raises:
        ValueError: If an option is unknown or out of its range; of a number
            as soon as the training starts.
    """

    # After the checkpoint: a run killed while drawing has lost nothing.
    priority = 'LOWEST'

    def __init__(
        self,
        interval: int | None = None,
        share: float = SHARE,
        **drawing: Any,
    ) -> None:
        if interval is not None and interval < 1:
            raise UserError(
                '`interval` of PreviewHook must be at least 1 iteration, '
                f'but got {interval}.'
            )
        if not 0 < share <= 1:
            raise UserError(
                '`share` of PreviewHook must be above 0 and at most 1, but '
                f'got {share}.'
            )
        for name in drawing:
            if name not in DRAWING:
                raise UserError(
                    f'PreviewHook has no option {name!r}; it has `interval`, '
                    '`share` and, for what it draws, '
                    f'{", ".join(DRAWING)}.'
                )
        self.interval = interval
        self.share = share
        self.drawing = drawing
        self._every = interval or 0  # known once the run is

    @override
    def before_train(self, runner: Any) -> None:
        """Make up for a preview that a killed run did not come to draw."""
        # a mistake should not cost the iterations before the first preview
        self._guidance(runner)
        batch = runner.train_dataloader.batch_size or 1
        costs = editor_of(runner).costs(batch, **self.drawing)
        if self.interval is None:
            self._every = self._spaced(runner, costs)
        done = runner.iter
        due = done % self._every == 0 or done == runner.max_iters
        if done and due and not _file(runner, done).is_file():
            self._draw(runner, done)

    def _guidance(self, runner: Any) -> dict[str, Any]:
        """The guidance that is really used."""
        asked = {k: v for k, v in self.drawing.items() if k in GUIDANCE}
        used: dict[str, Any] = editor_of(runner).guidance_of(**asked).plain()
        return used

    def _spaced(self, runner: Any, costs: tuple[float, float] | None) -> int:
        """Iterations between previews, as many as their share pays for."""
        intervals = [
            hook.interval
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook) and not hook.by_epoch
        ]
        checkpoints = max([1, *intervals])
        return spacing(runner.max_iters, costs, self.share, checkpoints)

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
            runner, self._every
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
            used = {**self.drawing, **self._guidance(runner)}
            save_sheet(picture, temporary, used)
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
        panels = editor.preview(source=sources.pixels, **self.drawing)
        return [*sources.panels, *panels]

    @override
    @master_only
    def after_train(self, runner: Any) -> None:
        """Draw the timeline, if there are two previews or more."""
        # Of these steps alone: the folder may have previews of another run.
        steps = {*range(self._every, runner.iter, self._every)}
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


def spacing(
    length: int,
    costs: tuple[float, float] | None,
    share: float,
    checkpoints: int,
) -> int:
    """Iterations between previews, as many as a share of the work pays for.

    Args:
        length: Iterations of the run.
        costs: Of a step and of a preview, see :meth:`Editor.costs`; None draws
            at the end alone.
        share: Of the work of all steps.
        checkpoints: Iterations between two of them. A preview is drawn where
            there is one, so that one can be chosen by it.

    Returns:
        At least 1. The last iteration has a preview in any case.
    """
    if costs is None:
        return length
    step, preview = costs
    count = max(1, int(share * length * step / preview))
    every = math.ceil(length / count)
    return math.ceil(every / checkpoints) * checkpoints


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
