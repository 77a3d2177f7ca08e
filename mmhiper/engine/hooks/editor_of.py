"""The way from a runner to its editor."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper


def editor_of(runner: Any) -> Any:
    """The editor of a run, without the wrapper of distributed training.

    Args:
        runner (Runner): The runner.

    Returns:
        EmbeddingEditor: Its editor.
    """
    model = runner.model
    return model.module if is_model_wrapper(model) else model
