"""Modules that stay on the CPU and compute elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


class _Method(nn.Module):
    """A method of a module as a module's forward."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.name)(*args)


def call_on(
    device: torch.device, module: nn.Module, method: str, *args: Any
) -> Any:
    """Calls a method with copies of the module's weights on a device.

    The module itself stays where it is. The copies live as long as something
    needs them: until the call is over, or, where gradients are to pass
    through, until they have.

    Args:
        device: Where to compute, and where ``args`` are.
        module: Frozen.
        method: The name of its method.
        *args: Of the method.

    Returns:
        What the method returns.
    """
    return copied_to(device, module, method)(*args)


def copied_to(
    device: torch.device, module: nn.Module, method: str
) -> Callable[..., Any]:
    """Copies a module's weights to a device, for one of its methods.

    Args:
        device: Where to compute.
        module: Frozen; it stays where it is.
        method: The name of its method.

    Returns:
        The method with the copies; it holds them.
    """
    called = _Method(module, method)
    weights = {
        name: weight.to(device)
        for name, weight in chain(
            called.named_parameters(), called.named_buffers()
        )
    }
    return lambda *args: functional_call(called, weights, args)
