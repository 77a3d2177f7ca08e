"""Checkpoints that are there before older ones go."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from typing_extensions import override

from mmhiper.interruption import STOP
from mmhiper.registry import HOOKS
from mmhiper.utils.atomic import atomic_path


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's, such that a kill or a full disk leaves the last checkpoint.

    With ``max_keep_ckpts`` an older checkpoint goes when the new one is
    complete, not before, and its export goes with it. What the log and the
    note ``last_checkpoint`` call the last one exists. A run that is told to
    stop gets a checkpoint of its last iteration. Options are MMEngine's.
    """

    filename_tmpl: str
    by_epoch: bool
    keep_ckpt_ids: deque
    _saved: int | None = None  # the iterations in the last checkpoint

    @override
    def before_train(self, runner: Any) -> None:
        """Drop what a run with fewer checkpoints to keep leaves out."""
        known = runner.message_hub.runtime_info.get('keep_ckpt_ids', [])
        before = list(known)
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            for step in before[: -self.max_keep_ckpts]:
                self._drop(step)

    @override
    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save at the interval, at the end, and when told to stop."""
        done = runner.iter + 1
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if not STOP.due or self._saved == done:
            return
        if self.by_epoch:  # whose number does not say where this one is
            meta = dict(epoch=runner.epoch, iter=done)
            self._write(runner, f'iter_{done}.pth', meta)
        else:
            self._save_checkpoint(runner)

    @override
    def _save_checkpoint_with_step(
        self, runner: Any, step: int, meta: dict[str, Any]
    ) -> None:
        """Saves, and then drops what is too many."""
        name = self.filename_tmpl.format(step)
        if self.max_keep_ckpts <= 0:
            self._write(runner, name, meta)
            return
        kept = [*(each for each in self.keep_ckpt_ids if each != step), step]
        # What is still to be dropped too: a run that is killed before does it
        # when it is resumed.
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        self._write(runner, name, meta)
        for old in kept[: -self.max_keep_ckpts]:
            self._drop(old)
        self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)

    def _write(self, runner: Any, name: str, meta: dict[str, Any]) -> None:
        """Saves, and notes that this is the last checkpoint."""
        path = str(Path(self.out_dir, name))
        before = runner.message_hub.get_info('last_ckpt', None)
        runner.message_hub.update_info('last_ckpt', path)  # it says so itself
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        except BaseException:
            runner.message_hub.update_info('last_ckpt', before)
            raise
        self.last_ckpt, self._saved = path, meta['iter']
        if is_main_process():
            with atomic_path(Path(runner.work_dir, 'last_checkpoint')) as note:
                note.write_text(path)

    def _drop(self, step: int) -> None:
        """Removes a checkpoint and its export."""
        if is_main_process():
            path = Path(self.out_dir, self.filename_tmpl.format(step))
            for file in (path, path.with_suffix('.safetensors')):
                file.unlink(missing_ok=True)
