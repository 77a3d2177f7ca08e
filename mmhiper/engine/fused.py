"""Optimisers whose step is one kernel, where the device has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmhiper.utils.devices import best_device

_KINDS = ('Adam', 'AdamW')  # of PyTorch
# On the CPU too, where it gains nothing and rounds differently.
_DEVICES = ('cuda', 'mps', 'xpu')
_CHOICES = ('fused', 'foreach', 'capturable', 'differentiable')


def with_fused_step(optim_wrapper: Mapping[str, Any]) -> Mapping[str, Any]:
    """Asks for a fused step, unless a config says how to step.

    Args:
        optim_wrapper: Of a config.

    Returns:
        The same, or a copy whose optimiser has ``fused=True``.
    """
    optimizer = optim_wrapper.get('optimizer')
    if (
        not isinstance(optimizer, Mapping)
        or optimizer.get('type') not in _KINDS
        or any(name in optimizer for name in _CHOICES)
        or best_device().type not in _DEVICES
    ):
        return optim_wrapper
    return dict(optim_wrapper, optimizer=dict(optimizer, fused=True))
