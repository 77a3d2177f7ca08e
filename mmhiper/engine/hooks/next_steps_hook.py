"""The closing words of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.shipped import shipped

TOOLS = shipped('tools')


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

    @master_only
    def after_run(self, runner: Any) -> None:
        """Log the closing words.

        Args:
            runner (Runner): The runner.
        """
        work_dir = Path(runner.work_dir)
        lines = [f'Done: {runner.iter} iterations.']
        preview = work_dir / 'previews' / f'iter_{runner.iter:06d}.png'
        checkpoint = work_dir / f'iter_{runner.iter}.pth'
        if checkpoint.is_file():
            lines.append(f'  checkpoint  {_short(checkpoint)}')
        if preview.is_file():
            lines.append(f'  picture     {_short(preview)}')
        for name, file in (('timeline', 'timeline.png'), ('loss', 'loss.png')):
            if (work_dir / file).is_file():
                lines.append(f'  {name:10}  {_short(work_dir / file)}')
        if checkpoint.is_file():
            # The config as it was run, with all options given by hand.
            name = runner.cfg.filename or f'{runner.timestamp}.py'
            config = work_dir / Path(name).name
            command = ['python', _short(TOOLS / 'infer.py'), _short(config)]
            prompt = editor_of(runner).example_prompt() or 'YOUR TEXT'
            command += [_short(checkpoint), '--prompt', prompt]
            lines += ['Next, edit by any text:', f'  {shlex.join(command)}']
        runner.logger.info('\n'.join(lines))
