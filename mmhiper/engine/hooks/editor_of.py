"""The way from a runner to its editor and its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.model import is_model_wrapper


def editor_of(runner: Any) -> Any:
    """The editor of a run, without the wrapper of distributed training.

    Returns:
        Its editor.
    """
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def config_of(runner: Any) -> Path:
    """Where the config of a run lies, with all options given by hand.

    Returns:
        In its work_dir.
    """
    name = runner.cfg.filename or f'{runner.timestamp}.py'
    return Path(runner.work_dir, Path(name).name)
