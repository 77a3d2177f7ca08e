"""What a checkpoint must hold for a training to go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmhiper.io.checkpoint import read_checkpoint
from mmhiper.io.file_content import read_content
from mmhiper.utils.errors import FileError

# What PyTorch's optimisers keep of the size of a parameter.
_MOMENTS = {
    'acc_delta',
    'exp_avg',
    'exp_avg_sq',
    'exp_inf',
    'grad_avg',
    'max_exp_avg_sq',
    'momentum_buffer',
    'square_avg',
}


def check_resumable(path: str | Path) -> None:
    """Refuses a checkpoint that a runner could not go on from.

    MMEngine meets these mistakes as KeyError and the like, and an optimiser
    that remembers other sizes only in its first step.

    Args:
        path: A ``.pth`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint, or without a usable
            ``meta`` or ``optimizer``.
    """
    state = read_checkpoint(path)
    content = read_content(path).entries
    problem = _problem(content, {tuple(each.shape) for each in state.values()})
    if problem:
        raise FileError(
            f'{str(path)!r} cannot be resumed: {problem}. Take another '
            'iter_N.pth of the run, or start anew from its learned tensors '
            '(`load_from` in place of `resume`).'
        )


def _problem(
    content: Mapping[str, Any], shapes: set[tuple[int, ...]]
) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    meta = content.get('meta')
    if not isinstance(meta, Mapping):
        return 'it has no `meta`, which says how far the run had come'
    for name in ('iter', 'epoch'):
        number = meta.get(name)
        if type(number) is not int or number < 0:
            return f'its `meta` must say the `{name}`, a whole number'
    hub = content.get('message_hub', {})
    if not isinstance(hub, Mapping):
        return 'its `message_hub` is no mapping'
    schedules = content.get('param_schedulers', [])
    if not isinstance(schedules, list | Mapping):
        return 'its `param_schedulers` are no list'
    if 'optimizer' not in content:
        return 'it has no state of the optimiser'
    return _optimizer_problem(content['optimizer'], shapes)


def _optimizer_problem(
    optimizer: Any, shapes: set[tuple[int, ...]]
) -> str | None:
    """What is wrong with the state of an optimiser, if anything."""
    if not isinstance(optimizer, Mapping):
        return 'the state of its optimiser is no mapping'
    groups, states = optimizer.get('param_groups'), optimizer.get('state')
    if not (
        isinstance(groups, list)
        and isinstance(states, Mapping)
        and all(isinstance(each, Mapping) for each in states.values())
        and all(
            isinstance(each, Mapping) and isinstance(each.get('params'), list)
            for each in groups
        )
    ):
        return 'the state of its optimiser is none of PyTorch'
    for each in states.values():
        for name in _MOMENTS & set(each):
            moment = each[name]
            shape = tuple(getattr(moment, 'shape', ()))
            if moment is not None and shape not in shapes:
                return (
                    f'its optimiser remembers {name} of the shape {shape}, '
                    f'but it learns {", ".join(map(str, sorted(shapes)))}'
                )
    return None
