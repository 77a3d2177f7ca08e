"""Buffers of a module that stay on the CPU, wherever the module goes."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn


def register_host_buffer(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Gives a module a buffer for numbers that steer Python.

    It is in the state dict, as a buffer is, but it is not moved with the
    module: to read a number from a device is to wait for all that the device
    still has to do.

    Args:
        module: Gets the tensor as an attribute.
        name: Its name, there and in the state dict.
        tensor: Its value, on the CPU; changed in place by loading.
    """
    setattr(module, name, tensor)
    module.register_state_dict_post_hook(partial(_save, name))
    module.register_load_state_dict_pre_hook(partial(_load, name))


def _save(
    name: str, module: nn.Module, state: dict, prefix: str, metadata: Any
) -> None:
    """Adds the buffer to a state dict."""
    state[prefix + name] = getattr(module, name)


def _load(
    name: str,
    module: nn.Module,
    state: dict,
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    *other: Any,
) -> None:
    """Takes the buffer out of a state dict, before PyTorch looks for it."""
    key = prefix + name
    if key in state:
        getattr(module, name).copy_(state.pop(key))
    elif strict:
        missing.append(key)
