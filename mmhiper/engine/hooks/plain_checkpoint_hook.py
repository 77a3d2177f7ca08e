"""Checkpoints of plain Python values and tensors only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from typing_extensions import override

from mmhiper.registry import HOOKS


def to_plain(value: Any) -> Any:
    """Turn a value into what ``torch.load(weights_only=True)`` accepts.

    Args:
        value: Nested containers of numbers, text, tensors, numpy values and
            history buffers.

    Returns:
        The same with dicts, lists, tuples, Python numbers, text and tensors. A
        history buffer becomes a dict of its lists and its ``max_length``;
        anything unknown becomes its ``repr``.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, HistoryBuffer):
        logs, counts = value.data
        return dict(
            log_history=logs.tolist(),
            count_history=counts.tolist(),
            max_length=value.max_length,
        )
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, (list, set, frozenset)):
        return [to_plain(item) for item in value]
    # Subclasses too, such as torch's version string.
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return repr(value)


def drop_config(checkpoint: Mapping[str, Any]) -> None:
    """Take the config out of a checkpoint, which is Python code.

    mmengine's Runner runs ``meta['config']`` of what it resumes. Nothing here
    needs it: the config of a run lies beside its checkpoints, and what was
    learned has a record, ``meta['embedding']``.

    Args:
        checkpoint: The checkpoint, changed in place.
    """
    meta = checkpoint.get('meta')
    hub = checkpoint.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    for place in (meta, info):
        if isinstance(place, dict):
            for name in ('config', 'cfg'):
                place.pop(name, None)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Make checkpoints plain data: loadable by ``torch.load``, resumable.

    mmengine stores its log buffers and numpy scalars as objects, which
    current torch refuses to unpickle; neither ``torch.load(path)`` nor
    ``--resume`` would work. This hook turns all but the tensors into plain
    Python before a checkpoint is written and rebuilds the log buffers after
    one is read. The config, which would be run as Python when the checkpoint
    is resumed, is left out both times.
    """

    # After all hooks that add something to the checkpoint.
    priority = 'VERY_LOW'

    @override
    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Replace objects by plain values, and leave out the config."""
        for key in set(checkpoint) - {'state_dict'}:
            checkpoint[key] = to_plain(checkpoint[key])
        drop_config(checkpoint)

    @override
    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Rebuild the log buffers, and drop a config before it is run."""
        drop_config(checkpoint)
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, buffer in scalars.items():
            if isinstance(buffer, dict):
                scalars[name] = HistoryBuffer(**buffer)
