"""Features of pictures and texts in the space that CLIP gives both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmhiper.models.backbones import Backbone
from mmhiper.models.loading import (
    backbone_folder,
    check_weights,
    loading,
    quiet,
)
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import UserError

HUB_CLIP = 'openai/clip-vit-large-patch14'
_REMEDY = f'Give a folder or a hub id, such as {HUB_CLIP!r}.'


class ClipFeatures:
    """The image and the text encoder of a CLIP model (arXiv 2103.00020).

    Args:
        sd: The frozen model of an editor; None where there is a ``clip``.
        clip: A CLIP model, hub id or folder. Defaults to the
            ``image_encoder/`` in the backbone's folder and the backbone's own
            text encoder, where these two are a pair.

    Attributes:
        name: ``clip``, or the backbone.

    Raises:
        ValueError: If the backbone has no image encoder that goes with its
            text encoder, or ``clip`` cannot be loaded.
    """

    def __init__(self, sd: Backbone | None, clip: str | None = None) -> None:
        self._sd = sd
        self._clip: Any = None
        self._device = best_device() if sd is None else sd.device
        if clip is not None:
            self.name = clip
            self._clip, self._processor = _load_clip(clip)
            self._clip.to(self._device).eval().requires_grad_(False)
        elif sd is not None:
            self.name = sd.backbone
            self._encoder, self._processor = _load_own(sd)
        else:
            raise UserError(f'Name a CLIP model, such as {HUB_CLIP!r}.')

    @torch.no_grad()
    def images(self, images: list[Image.Image]) -> Tensor:
        """Encodes pictures.

        Args:
            images: B pictures.

        Returns:
            (B, P) of length one, on the CPU.
        """
        pixels = self._processor(images=images, return_tensors='pt')
        pixels = pixels['pixel_values'].to(self._device)
        if self._clip is None:
            features = self._encoder(pixel_values=pixels).image_embeds
        else:
            features = self._clip.get_image_features(pixel_values=pixels)
        return _unit(features)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Encodes texts.

        Args:
            texts: B texts without placeholders.

        Returns:
            (B, P) of length one, on the CPU.
        """
        if self._clip is None:
            assert self._sd is not None
            encoder = self._sd.text_encoder
            ids = self._sd.vocabulary.encode(texts).to(encoder.device)
            return _unit(encoder(ids).pooler_output)
        rows = self._processor(
            text=texts, return_tensors='pt', padding=True, truncation=True
        ).to(self._device)
        return _unit(self._clip.get_text_features(**rows))


def _unit(features: Any) -> Tensor:
    # newer transformers wrap them
    tensor: Tensor = getattr(features, 'pooler_output', features)
    return F.normalize(tensor.float(), dim=-1).cpu()


def _load_own(sd: Backbone) -> tuple[Any, Any]:
    """The image encoder in the backbone's folder, with its preprocessing."""
    import transformers

    folder = backbone_folder(sd.backbone)
    width = sd.token_tables[0].shape[1]
    if folder is None or not Path(folder, 'image_encoder').is_dir():
        raise UserError(
            f'The backbone {sd.backbone!r} has no image_encoder/ to compare '
            f'pictures with. Name a CLIP model, such as {HUB_CLIP!r}.'
        )
    check_weights(str(folder), 'image_encoder')
    with loading(sd.backbone, 'the image_encoder/', _REMEDY), quiet():
        encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(
            folder, subfolder='image_encoder'
        )
        processor = transformers.CLIPImageProcessor.from_pretrained(
            folder, subfolder='feature_extractor'
        )
    if encoder.config.projection_dim != width:
        raise UserError(
            f'The image encoder of {sd.backbone!r} gives features of '
            f'{encoder.config.projection_dim} numbers, its text encoder of '
            f'{width}: they are no pair. Name a CLIP model, such as '
            f'{HUB_CLIP!r}.'
        )
    return encoder.to(sd.device).eval().requires_grad_(False), processor


def _load_clip(clip: str) -> tuple[Any, Any]:
    """A whole CLIP model from the hub or a folder."""
    import transformers

    check_weights(clip)
    with loading(clip, 'the CLIP model', _REMEDY), quiet():
        model = transformers.CLIPModel.from_pretrained(clip)
        processor = transformers.CLIPProcessor.from_pretrained(clip)
    return model, processor
