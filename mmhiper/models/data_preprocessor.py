"""From pictures as the data pipeline gives them to what the model sees."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import Tensor
from typing_extensions import override

from mmhiper.registry import MODELS
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import image_key, resized
from mmhiper.utils.randomness import generator_of, run_state

# One entry per source image; pictures that are made anew at every iteration
# must not pile up.
MAX_PREPARED = 64
MOST_PIXELS = 8192  # of a side; no backbone draws as large


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Brings square pictures to the backbone's resolution and range.

    The resolution is a property of the backbone, so the last resize is done
    here, where the editor fills it in, and one pipeline serves them all.

    Args:
        size: Side in pixels. None means the backbone's own.
        random_flip: Whether to mirror each picture left to right in half of
            the training iterations. It is done here and not in the data
            pipeline, so that it too depends on (seed, picture, iteration)
            alone.
    """

    def __init__(
        self, size: int | None = None, random_flip: bool = False
    ) -> None:
        super().__init__()
        if size is not None and not 1 <= size <= MOST_PIXELS:
            raise UserError(
                f'`size` must be in [1, {MOST_PIXELS}] pixels, but got {size}.'
            )
        self.size = size
        self.random_flip = random_flip
        # what came, and what became of it: pixels, mask, name
        self._prepared: dict[
            tuple, tuple[list[Tensor], Tensor, Tensor | None, str]
        ] = {}

    @override
    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocesses one batch.

        Args:
            data: 'inputs': (B, 3, H, W) or a list of (3, H, W), RGB uint8 in
                [0, 255], square, sizes may differ; optionally 'data_samples':
                a list of B data elements, which may have a ``mask``, (H, W)
                uint8, 255 for what the loss counts.
            training: Whether random flips take place.

        Returns:
            'inputs': (B, 3, size, size) fp32 in [-1, 1]; 'data_samples': the
            elements, each with an ``image_key``, a short hash of its picture
            that names it wherever it lies and whatever batch it is in, and,
            where it has a mask, a ``loss_mask``, (size, size) fp32 in [0, 1].
            A mirrored picture is another picture; one with another mask is the
            same.

        Raises:
            ValueError: If a picture or a mask has another type or shape.
        """
        images = list(data['inputs'])
        samples = data.get('data_samples')
        if samples is None:
            samples = [BaseDataElement() for _ in images]
        pixels = []
        for image, sample in zip(images, samples, strict=True):
            prepared, mask, key = self._prepare(image, sample.get('mask'))
            if training and self.random_flip and _heads_up(key):
                prepared, key = prepared.flip(-1), f'{key}-mirrored'
                mask = None if mask is None else mask.flip(-1)
            pixels.append(prepared)
            sample.set_metainfo(dict(image_key=key))
            if mask is not None:
                sample.set_data(dict(loss_mask=mask))
        return dict(inputs=torch.stack(pixels), data_samples=samples)

    def _prepare(
        self, image: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, str]:
        """Checks, names and resizes a picture when it is first seen."""
        # A dataset that keeps its pictures hands over the same tensor at every
        # iteration; a photo of 12 megapixels would take longer to resize than
        # a step of training.
        # (3, H, H) uint8 in [0, 255] -> (3, size, size) fp32 in [-1, 1]; a
        # mask (H, H) likewise -> (size, size) in [0, 1], soft where a pixel is
        # in part subject

        # The entry keeps its tensors alive, so no others can have their ids;
        # the versions count changes in place.
        given = [each for each in (image, mask) if each is not None]
        entry = (self.device, *((id(each), each._version) for each in given))
        if entry not in self._prepared:
            _check(image)
            if mask is not None:
                _check_mask(mask, image)
            if len(self._prepared) >= MAX_PREPARED:
                self._prepared.clear()
            self._prepared[entry] = (
                given,
                self._to_model(image),
                None if mask is None else self._share_of(mask),
                image_key(image),
            )
        return self._prepared[entry][1:]

    def _share_of(self, mask: Tensor) -> Tensor:
        """How much of each pixel of the model is subject."""
        share = mask.to(self.device).float() / 255
        size = self.size or len(mask)
        share = F.interpolate(share[None, None], (size, size), mode='area')
        return share[0, 0]

    def _to_model(self, image: Tensor) -> Tensor:
        """Resizes and rescales one picture."""
        # (3, H, H) uint8 in [0, 255] -> (3, size, size) fp32 in [-1, 1]
        on_device = image.to(self.device, non_blocking=True)
        pixels = on_device.float() / 127.5 - 1
        size = self.size or image.shape[-1]
        return resized(pixels, size, size)


def _heads_up(key: str) -> bool:
    """Tosses the coin of a picture at this iteration of the run."""
    toss = torch.rand(1, generator=generator_of(*run_state(), key, 'flip'))
    return bool(toss < 0.5)


def _check(image: Tensor) -> None:
    """Refuses what is not a square RGB picture."""
    if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8:
        raise UserError(
            'A picture must be a (3, H, W) uint8 RGB tensor in [0, 255], but '
            f'got shape {tuple(image.shape)} and type {image.dtype}.'
        )
    if image.shape[1] != image.shape[2]:
        raise UserError(
            f'A picture must be square, but got {image.shape[2]} x '
            f'{image.shape[1]} pixels: put a SquareCrop into the pipeline.'
        )


def _check_mask(mask: Tensor, image: Tensor) -> None:
    """Refuses what is no mask of a picture."""
    if mask.shape != image.shape[1:] or mask.dtype != torch.uint8:
        raise UserError(
            'A mask must be a uint8 tensor in [0, 255] of the size of its '
            f'picture, {tuple(image.shape[1:])}, but got shape '
            f'{tuple(mask.shape)} and type {mask.dtype}.'
        )
    if not mask.any():
        raise UserError('A mask must have a subject, but all of it is 0.')
