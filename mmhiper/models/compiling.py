"""Compiling the blocks that a U-Net or a transformer is built of."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mmhiper.utils.errors import UserError

# Blocks of a kind differ by their sizes, and each is met with and without
# gradients, in two layouts and in several batch sizes.
MOST_VARIANTS = 128
# Of U-Nets and of Stable Diffusion 3; most classes of diffusers say what else
# is repeated in them.
_KINDS = ('BasicTransformerBlock', 'JointTransformerBlock', 'ResnetBlock2D')


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks that are compiled, each by itself.

    Args:
        network: A U-Net or a transformer of diffusers.

    Returns:
        Residual and transformer blocks; all of it where there are none.
    """
    kinds = {*(getattr(network, '_repeated_blocks', None) or ()), *_KINDS}
    found = [m for m in network.modules() if type(m).__name__ in kinds]
    return found or [network]


def compile_blocks(network: nn.Module, backend: str) -> None:
    """Has blocks compiled when they are first called with inputs of a shape.

    Region by region: blocks of one kind and one size are one program, so it
    takes seconds where the whole network takes minutes, and what differs from
    step to step (timesteps, texts) is a tensor that no program depends on.

    Args:
        network: Changed in place; names of its weights stay.
        backend: Of ``torch.compile``.

    Raises:
        ValueError: If PyTorch has no such backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise UserError(
            '`compile` must be True, False or one of '
            f'{", ".join(map(repr, known))}, but got {backend!r}.'
        )
    options: dict[str, Any] = dict(backend=backend, dynamic=False)
    if 'recompile_limit' in inspect.signature(torch.compile).parameters:
        options['recompile_limit'] = MOST_VARIANTS
    else:  # before torch 2.12 it was one number for all
        import torch._dynamo.config as settings

        settings.cache_size_limit = max(
            MOST_VARIANTS,
            settings.cache_size_limit,
        )
    for block in blocks_of(network):
        block.compile(**options)


@contextlib.contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Runs blocks as they were written, where a program would not fit.

    Args:
        network: Compiled or not.

    Yields:
        None
    """
    if all(m._compiled_call_impl is None for m in network.modules()):
        yield
        return
    with torch.compiler.set_stance('force_eager'):
        yield
