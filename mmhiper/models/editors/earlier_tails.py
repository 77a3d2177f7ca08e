"""What HiPer has learned of other images, as a place to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmhiper.io.checkpoint import notes_of, read_checkpoint
from mmhiper.io.identity import Identity
from mmhiper.utils.errors import UserError

_NAME = 'embedding.tail'


def mean_tail(
    paths: Sequence[str], record: Mapping[str, str], own: Tensor
) -> Tensor:
    """The mean of all learned tails in some files.

    Args:
        paths: Checkpoints or exports of HiPer, of one image or of many.
        record: What the editor belongs to, by the names of :class:`Identity`.
        own: Its own start, (K, N, D).

    Returns:
        (1, N, D) fp32, on the device of ``own``.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If one is of another editor, backbone, N or width, or has
            numbers that are not finite; or if there is none.
    """
    if not paths:
        raise UserError(
            '`embedding` must name at least one file, but got an empty list.'
        )
    tails = []
    for path in paths:
        state = read_checkpoint(path)
        found = Identity.of(state, notes_of(state).get('', {}))
        shape = found.shapes.get(_NAME) or tuple(own.shape)
        # of as many images as there are
        wanted = {_NAME: (*shape[:1], *own.shape[1:])}
        expected = Identity(wanted, record['editor'], record['backbone'])
        expected.check_loads(found)
        tail = state[_NAME].float()
        if not tail.isfinite().all():
            raise UserError(
                f'{str(path)!r} holds numbers that are NaN or infinite: its '
                'training diverged. Leave it out of `embedding`.'
            )
        tails.append(tail)
    return torch.cat(tails).mean(0, keepdim=True).to(own.device)
