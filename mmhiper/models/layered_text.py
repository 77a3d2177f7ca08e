"""Texts that differ by cross-attention layer: each layer reads its own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmhiper.models.attention import Layer, attention_layers, module_of

_PASSED = ('down', 'mid', 'up')  # in this order by a picture
_TEXTS = ('encoder_hidden_states', 'value_states')


def cross_layers(unet: nn.Module) -> list[Layer]:
    """The layers that attend to the text, as a picture passes them.

    Args:
        unet: The U-Net.

    Returns:
        L of them, 16 in Stable Diffusion 1.x.
    """
    layers = [layer for layer in attention_layers(unet) if layer.cross]
    return sorted(layers, key=lambda layer: _PASSED.index(layer.part))


def in_a_row(tokens: Tensor) -> Tensor:
    """Lays the texts of all layers one behind another.

    Args:
        tokens: Of one stage, (B, 1, L, M, D).

    Returns:
        (B, L * M, D), which the layers read after `read_own`.
    """
    return tokens.flatten(1, 3)


def read_own(unet: nn.Module, num_positions: int) -> None:
    """Has each layer read its own part of texts in a row, from now on.

    A text of ``num_positions`` is read as ever, one that is longer is those
    of all layers. These are hooks, so they work with any kind of attention,
    and where a backward pass computes it again.

    Args:
        unet: The U-Net.
        num_positions: M.
    """
    layers = cross_layers(unet)
    for number, layer in enumerate(layers):
        module_of(unet, layer).register_forward_pre_hook(
            partial(
                _own,
                number=number,
                layers=len(layers),
                length=num_positions,
            ),
            with_kwargs=True,
        )


def _own(
    module: nn.Module,
    args: Iterable[Any],
    kwargs: dict[str, Any],
    *,
    number: int,
    layers: int,
    length: int,
) -> tuple[Iterable[Any], dict[str, Any]]:
    """The arguments of a layer with its part of the texts."""
    own = {
        name: kwargs[name].unflatten(1, (layers, -1))[:, number]
        for name in _TEXTS
        if kwargs.get(name) is not None and kwargs[name].shape[1] > length
    }
    return args, {**kwargs, **own}
