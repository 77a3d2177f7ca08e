"""The settings of a training, checked before anything is loaded."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

import mmengine.optim  # noqa: F401  fills the registry of optimizers
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, Registry
from mmengine.runner import Runner

from mmhiper.io.modelspec import check_given
from mmhiper.registry import HOOKS
from mmhiper.utils.arguments import (
    UnknownOptionError,
    arguments_of,
    check_types,
)
from mmhiper.utils.errors import UserError
from mmhiper.utils.registries import class_of

# Hooks that every run of MMEngine's has, and one that ours have.
_DEFAULT_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
    'finite',
)
_LARGEST_SEED = 2**32 - 1  # of NumPy
# What a config may have at its top beside what a Runner takes.
_TOPS = {
    'activation_checkpointing',
    'custom_imports',
    'model_wrapper_cfg',
    'runner_type',
    'test_metrics',
    'compile',
    'images_per_step',
    'modelspec',
    'photos',
}


def top_settings() -> set[str]:
    """The names at the top of a config that a run takes notice of.

    Returns:
        Such as 'train_cfg'.
    """
    known = set(inspect.signature(Runner.__init__).parameters)
    return known - {'self', 'cfg'} | _TOPS


def check_settings(cfg: Config) -> None:
    """Refuses settings that a run would end at, or come to nothing by.

    Args:
        cfg: Config of the run.

    Raises:
        ValueError: If its length, batch or seed is no number that it can be;
            its learning rate, or the norm that gradients are cut to, none
            above 0; or a value of the optimizer or of a hook is of another
            type than its class says.
    """
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    _check_above_0('optimizer.lr', optimizer.get('lr', 1.0))
    clip = cfg.optim_wrapper.get('clip_grad') or {}
    for name in ('max_norm', 'clip_value'):
        _check_above_0(f'clip_grad.{name}', clip.get(name, 1.0))
    _check_entry('optim_wrapper.optimizer', optimizer, OPTIMIZERS)
    check_given(cfg.get('modelspec'))
    _check_hooks(cfg)
    for name in ('max_iters', 'max_epochs'):
        length = cfg.train_cfg.get(name)
        if length is not None:  # else of a loop that knows
            _check_whole(f'train_cfg.{name}', length, 1)
    _check_whole('images_per_step', cfg.get('images_per_step', 1), 1)
    loader = cfg.train_dataloader
    _check_whole('train_dataloader.batch_size', loader.get('batch_size', 1), 1)
    workers = loader.get('num_workers', 0)
    _check_whole('train_dataloader.num_workers', workers, 0)
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None:
        _check_whole('randomness.seed', seed, 0, _LARGEST_SEED)


def _check_hooks(cfg: Config) -> None:
    """Refuses hooks that are none, or that get what they do not take."""
    default = cfg.get('default_hooks') or {}
    for name, entry in default.items():
        if isinstance(entry, Mapping) and 'type' not in entry:
            near = difflib.get_close_matches(name, _DEFAULT_HOOKS, 1)
            meant = f' Did you mean default_hooks.{near[0]}?' if near else ''
            raise UserError(
                f'`default_hooks.{name}` must have a `type`, but got '
                f'{dict(entry)!r:.80}.{meant}'
            )
        _check_entry(f'default_hooks.{name}', entry, HOOKS)
    for number, entry in enumerate(cfg.get('custom_hooks') or ()):
        _check_entry(f'custom_hooks.{number}', entry, HOOKS)


def _check_entry(place: str, entry: Any, registry: Registry) -> None:
    """Refuses values that the class of a part of a config does not take."""
    kind = class_of(entry, registry)
    if kind is None:
        return
    values = {
        name: value
        for name, value in entry.items()
        if name not in ('type', '_scope_', 'priority')
    }
    known = arguments_of(kind, of_this_run=True)
    constructor = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    if all(each.kind is not each.VAR_KEYWORD for each in constructor):
        for name in values:
            if name not in known:
                raise UnknownOptionError(f'`{place}`', name, known)
    check_types(values, known, f'`{place}`')
    interval = values.get('interval')
    if interval == 0:
        raise UserError(
            f'`{place}.interval` must be at least 1 iteration, but got 0.'
        )


def _check_whole(
    name: str, number: Any, least: int, most: int | None = None
) -> None:
    """Refuses a setting that is no whole number in its range."""
    if type(number) is int and least <= number <= (most or number):
        return
    wanted = (
        f'of at least {least}' if most is None else f'in [{least}, {most}]'
    )
    raise UserError(
        f'`{name}` must be a whole number {wanted}, but got {number!r}.'
    )


def _check_above_0(name: str, number: Any) -> None:
    """Refuses a setting of the optimiser with which it moves nothing."""
    real = isinstance(number, int | float) and not isinstance(number, bool)
    if not real or not 0 < number < math.inf:
        remedy = ''
        if real and number == 0:
            remedy = ' With 0 nothing is ever learned.'
        raise UserError(
            f'`optim_wrapper.{name}` must be a number above 0, but got '
            f'{number!r}.{remedy}'
        )
