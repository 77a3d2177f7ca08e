"""How much memory drawing takes, counted without doing it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from mmhiper.models.backbones import Backbone
from mmhiper.models.compiling import uncompiled
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.guidance import Guidance
from mmhiper.models.offload import copied_to
from mmhiper.utils.devices import free_memory

# Of the free memory: what kernels take for themselves, and how allocators cut
# memory up, is not counted.
SHARE = 0.5
# Peaks that are counted already, by the shape of what is drawn.
_COUNTED: weakref.WeakKeyDictionary[Any, dict[tuple, int]]
_COUNTED = weakref.WeakKeyDictionary()


class PeakBytes(TorchDispatchMode):
    """Counts what is allocated inside the ``with`` block, wherever.

    Attributes:
        peak: The most bytes at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Runs an operation, and notes the memory of its results."""
        given = tree_leaves((args, kwargs))
        before = {self._id(each) for each in given if isinstance(each, Tensor)}
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and self._id(each) not in before:
                self._add(each.untyped_storage())
        return result

    @staticmethod
    def _id(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _add(self, storage: torch.UntypedStorage) -> None:
        """Notes a new storage until it is gone."""
        name = storage._cdata
        if name in self._known:
            return
        self._known.add(name)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, name, storage.nbytes())

    def _drop(self, name: int, size: int) -> None:
        self._known.discard(name)
        self._now -= size


def bytes_per_picture(
    sd: Backbone, shape: tuple[int, int, int], text: Conditioning
) -> int | None:
    """What a pass through the U-Net needs for one picture.

    Found on PyTorch's meta device, where tensors have a size and no numbers.

    Args:
        sd: The frozen model.
        shape: Of the latents, (C, h, w).
        text: Of the picture, one text.

    Returns:
        Bytes at the peak, without the weights; None for a model with an
        operation that has no such device.
    """
    known = _COUNTED.setdefault(sd, {})
    key = (shape, text.tokens.shape)
    if key not in known:
        meta = torch.device('meta')
        latents = torch.empty(1, *shape, device=meta)
        text = text.to(meta)
        predict = copied_to(meta, sd, 'predict')
        try:
            with (
                torch.no_grad(),
                uncompiled(sd.unet),
                PeakBytes() as counted,
            ):
                predict(latents, torch.tensor(1), text)
        except (RuntimeError, NotImplementedError):
            return None
        known[key] = counted.peak
    return known[key]


def pictures_at_once(
    sd: Backbone,
    shape: tuple[int, int, int],
    conditioning: Conditioning,
    guidance: Guidance,
) -> int:
    """How many pictures may be drawn at the same time.

    Args:
        sd: The frozen model, on its device.
        shape: Of the latents of one, (C, h, w).
        conditioning: B texts.
        guidance: By which a picture takes two passes.

    Returns:
        At least 1 and at most B; B where it is not known what is free, or
        needed.
    """
    count = len(conditioning)
    free = free_memory(sd.device)
    if free is None:
        return count
    each = bytes_per_picture(sd, shape, conditioning[:1])
    if each is None:
        return count
    passes = 2 if guidance.acts else 1
    return max(1, min(count, int(SHARE * free / (passes * each))))
