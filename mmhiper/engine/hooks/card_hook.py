"""A page about each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from typing_extensions import override

from mmhiper.engine.model_card import write_card
from mmhiper.registry import HOOKS


@HOOKS.register_module()
class CardHook(Hook):
    """Write ``README.md`` of the work_dir at the end of a run.

    ``train`` adds it to each run. A page that somebody else wrote stays.
    """

    # Before NextStepsHook, which names it.
    priority = 'VERY_LOW'

    @override
    @master_only
    def after_run(self, runner: Any) -> None:
        """Write it."""
        last = runner.message_hub.get_info('last_ckpt', None)
        if last and Path(last).is_file():
            write_card(runner.work_dir, last)
