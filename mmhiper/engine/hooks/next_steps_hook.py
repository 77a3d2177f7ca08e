"""The closing words of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.engine.hooks.editor_of import config_of, editor_of
from mmhiper.registry import HOOKS


def _short(path: str | Path) -> str:
    """The path from the current folder, where it lies inside."""
    full = Path(path).absolute()
    here = Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)


@HOOKS.register_module()
class NextStepsHook(Hook):
    """End a run by saying where its results are and what to run next."""

    # After the last checkpoint, export and preview.
    priority = 'LOWEST'

    @override
    def before_train(self, runner: Any) -> None:
        """Note where this process begins."""
        self._first = runner.iter

    @override
    @master_only
    def after_run(self, runner: Any) -> None:
        """Log the closing words."""
        work_dir = Path(runner.work_dir)
        lines = [f'Done: {runner.iter} iterations.']
        if runner.iter == self._first:
            lines = [f'Nothing to do: all {runner.iter} iterations are done.']
        preview = work_dir / 'previews' / f'iter_{runner.iter:06d}.png'
        # wherever, and by whatever name, the checkpoint hook wrote it
        last = runner.message_hub.get_info('last_ckpt', None)
        checkpoint = Path(last) if last and Path(last).is_file() else None
        if checkpoint:
            lines.append(f'  checkpoint  {_short(checkpoint)}')
        if preview.is_file():
            lines.append(f'  picture     {_short(preview)}')
        for name, file in (
            ('timeline', 'timeline.png'),
            ('loss', 'loss.png'),
            ('page', 'README.md'),
        ):
            if (work_dir / file).is_file():
                lines.append(f'  {name:10}  {_short(work_dir / file)}')
        if checkpoint:
            command = ['mmhiper', 'infer', _short(config_of(runner))]
            prompt = editor_of(runner).example_prompt() or 'YOUR TEXT'
            command += [_short(checkpoint), '--prompt', prompt]
            lines += ['Next, edit by any text:', f'  {shlex.join(command)}']
        runner.logger.info('\n'.join(lines))
