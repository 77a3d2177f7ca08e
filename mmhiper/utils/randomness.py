"""Random numbers that depend on what they are for, and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from mmengine.logging import MessageHub
from torch import Tensor

from mmhiper.utils.errors import UserError

Generators = torch.Generator | Sequence[torch.Generator]


def generator_of(*origin: int | str) -> torch.Generator:
    """A generator seeded by what its numbers may depend on.

    Args:
        *origin: For instance seed, picture and iteration.

    Returns:
        On the CPU, so that all devices draw the same.
    """
    name = '/'.join(map(str, origin)).encode()
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, 'big') >> 1)


def draw_noise(shape: tuple[int, ...], generator: Generators) -> Tensor:
    """Draws unit normal noise from one generator or from one per sample.

    Args:
        shape: (B, ...).
        generator: One, or B.

    Returns:
        fp32, on the device of the generator.

    Raises:
        ValueError: If a list of generators does not have B of them.
    """
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, device=generator.device)
    check_generators(generator, shape[0])
    return torch.stack(
        [
            torch.randn(shape[1:], generator=each, device=each.device)
            for each in generator
        ]
    )


def check_generators(generator: Generators, count: int) -> None:
    """Refuses a list of another length than there are pictures.

    Args:
        generator: One, or a list.
        count: How many pictures there are.

    Raises:
        ValueError: If a list has not one for each.
    """
    if isinstance(generator, torch.Generator) or len(generator) == count:
        return
    raise UserError(
        f'A list of generators must have one for each of {count} pictures, '
        f'but has {len(generator)}.'
    )


def run_state() -> tuple[int, int]:
    """Asks MMEngine for the seed and the iteration of the current run.

    Returns:
        Seed and iteration, as RuntimeInfoHook keeps them.

    Raises:
        ValueError: If no run has set them.
    """
    hub = MessageHub.get_current_instance()
    seed, iteration = hub.get_info('seed'), hub.get_info('iter')
    if seed is None or iteration is None:
        raise UserError(
            "A training step needs the run's seed and iteration, from which "
            "its noise is drawn. MMEngine's Runner sets them; a loop of your "
            'own does it with `MessageHub.get_current_instance()'
            '.update_info_dict(dict(seed=..., iter=...))`.'
        )
    return seed, iteration
