"""A portable copy of the embedding beside each checkpoint."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.engine.hooks.run_hook import RunHook
from mmhiper.io import write_export
from mmhiper.io.modelspec import add_thumbnail, check_given, choose_panel
from mmhiper.io.record import KEY
from mmhiper.registry import HOOKS
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import FileError
from mmhiper.utils.pixels import without_sources
from mmhiper.utils.sheet import read_panels


def _beside(checkpoint: str) -> Path:
    return Path(checkpoint).with_suffix('.safetensors')


@HOOKS.register_module()
class ExportHook(Hook):
    """Write ``iter_N.safetensors`` beside each ``iter_N.pth``.

    The file holds the learned tensors and, as metadata, what they are worth
    nothing without: the record of :mod:`mmhiper.io.record`, from which
    :func:`mmhiper.apis.load_editor` builds their editor. The checkpoint gets
    the same record as ``meta['embedding']``.

    For user interfaces it has the fields of :mod:`mmhiper.io.modelspec` too,
    with what ``modelspec`` of the config says, the time when the run was
    started, and in the last file of a run a picture of its last preview.
    """

    # Right after CheckpointHook (VERY_LOW).
    priority = 'LOWEST'

    @override
    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note in the checkpoint what its embedding belongs to."""
        checkpoint['meta'][KEY] = self._record(
            runner, checkpoint['meta']['iter']
        )

    @override
    def before_train(self, runner: Any) -> None:
        """Make up for an export that a killed run did not come to write."""
        last = runner.message_hub.get_info('last_ckpt', None)
        self._last = last  # already there when the run is resumed
        if last and Path(last).is_file() and not _beside(last).exists():
            self._export(runner, last, runner.iter)

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Export what CheckpointHook has just written, if it has."""
        self._follow(runner, runner.iter + 1)

    @override
    def after_train_epoch(self, runner: Any) -> None:
        """Likewise, where checkpoints are written by epoch."""
        self._follow(runner, runner.iter)

    def _follow(self, runner: Any, step: int) -> None:
        """Exports the last checkpoint, if it is new."""
        last = runner.message_hub.get_info('last_ckpt', None)
        if last != self._last:
            self._last = last
            self._export(runner, last, step)

    @master_only
    def _export(self, runner: Any, checkpoint: str, step: int) -> None:
        editor = editor_of(runner)
        with atomic_path(_beside(checkpoint)) as path:
            write_export(
                path,
                editor.learned_state(),
                self._record(runner, step),
                editor.model_facts() | _said_of(runner),
            )

    @override
    @master_only
    def after_run(self, runner: Any) -> None:
        """Give the last export the picture of the last preview."""
        preview = runner.message_hub.get_info('last_preview', None)
        files = [preview, self._last and _beside(self._last)]
        if not all(file and Path(file).is_file() for file in files):
            return
        with suppress(FileError):  # a picture that another program changed
            panels = without_sources(read_panels(files[0]))
            if panels:
                add_thumbnail(files[1], choose_panel(panels))

    def _record(self, runner: Any, step: int) -> dict[str, Any]:
        record: dict[str, Any] = editor_of(runner).export_metadata()
        return dict(record, step=step, seed=runner.seed)


def _said_of(runner: Any) -> dict[str, str]:
    """What its user says of a run, and when it was started."""
    said = check_given(runner.cfg.get('modelspec'))
    for hook in runner.hooks:
        if isinstance(hook, RunHook):
            said['date'] = hook.run['started']  # first, of a resumed run
    return said
