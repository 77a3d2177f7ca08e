"""Similarity to texts and to subjects, in the features of an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from typing_extensions import override

from mmhiper.evaluation.clip_features import ClipFeatures
from mmhiper.evaluation.dino import HUB_DINO, DinoFeatures
from mmhiper.evaluation.edited import (
    Edited,
    EditMetric,
    Measures,
    blackened,
)
from mmhiper.evaluation.imagenet import ImageNetFeatures
from mmhiper.registry import METRICS

_MOST_KNOWN = 4096  # features of pictures that are kept


class PictureFeatures(Protocol):
    """What encodes pictures."""

    name: str

    def images(self, images: list[Image.Image]) -> Tensor:
        """B pictures as (B, P), of length one, on the CPU."""


@METRICS.register_module()
class ClipScore(EditMetric):
    """How near an edit is to its text, by CLIP.

    ``clip_whole`` is 100 times the cosine to the target text, at least 0;
    ``clip_edited`` likewise, of a picture that is black outside the mask, both
    as PIE-Bench has them (arXiv 2310.01506). ``clip_direction`` is the cosine
    of the way from source to edit and the way from text to text (arXiv
    2108.00946, eq. 2).

    Args:
        clip: Hub id or folder of a CLIP model, or features that are shared.
        **options: Of MMEngine's metric.

    Raises:
        ValueError: If it cannot be loaded.
    """

    def __init__(self, clip: str | ClipFeatures, **options: Any) -> None:
        super().__init__(**options)
        self.features = clip_of(clip)
        self.encoder = self.features.name

    @override
    def measure(self, edited: Edited) -> Measures:
        pictures = [edited.edited, edited.source]
        if edited.mask is not None and edited.mask.any():
            pictures.append(blackened(edited.edited, edited.mask))
        images = self.features.images(pictures)
        texts = [edited.target_text]
        if edited.source_text:
            texts.append(edited.source_text)
        encoded = self.features.texts(texts)
        scores = (100 * images @ encoded[0]).clamp_min(0)
        said = dict(clip_whole=float(scores[0]))
        if len(pictures) > 2:
            said['clip_edited'] = float(scores[2])
        if len(texts) > 1:
            way, told = images[0] - images[1], encoded[0] - encoded[1]
            if way.any() and told.any():
                cosine = F.cosine_similarity(way, told, dim=0)
                said['clip_direction'] = float(cosine)
        return said


def clip_of(clip: str | ClipFeatures) -> ClipFeatures:
    """Loads CLIP where it is named.

    Args:
        clip: Hub id, folder, or features.
    """
    return ClipFeatures(None, clip) if isinstance(clip, str) else clip


class Identity(EditMetric):
    """Whether the subject is still the same one, as an encoder sees it.

    ``identity_*`` is the mean cosine of the edit to the pictures of its
    subject; ``retrieval_*`` is 1 where one of them is the nearest among those
    of K subjects, else 0; ``background_*`` the cosine where nothing should
    change (both black elsewhere); ``goal_*`` that to the right answer.

    Args:
        features: The encoder.
        **options: Of MMEngine's metric.

    Attributes:
        kind: What the names of its numbers end with.
    """

    kind: str

    def __init__(self, features: PictureFeatures, **options: Any) -> None:
        super().__init__(**options)
        self.features = features
        self.encoder = features.name
        self._known: dict[bytes, Tensor] = {}

    def _encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Features (B, P); each picture is encoded once."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        keys = [
            hashlib.blake2b(each.tobytes(), digest_size=16).digest()
            for each in pictures
        ]
        for key, picture in zip(keys, pictures, strict=True):
            if key not in self._known:
                self._known[key] = self.features.images([picture])[0]
        return torch.stack([self._known[key] for key in keys])

    @override
    def measure(self, edited: Edited) -> Measures:
        own = self._encode(edited.references or (edited.source,))
        (drawn,) = self.features.images([edited.edited])
        near = own @ drawn
        said = {f'identity_{self.kind}': float(near.mean())}
        if edited.others:
            far = self._encode(edited.others) @ drawn
            found = float(near.max() > far.max())
            said[f'retrieval_{self.kind}'] = found
        for view, a, b in edited.views():
            if view:
                one = self._encode([a])[0]
                other = drawn
                if b is not edited.edited:
                    (other,) = self.features.images([b])
                said[f'{view}{self.kind}'] = float(one @ other)
        return said


@METRICS.register_module()
class ClipIdentity(Identity):
    """The subject as CLIP sees it (CLIP-I of arXiv 2208.12242).

    Args:
        clip: Hub id or folder of a CLIP model, or features that are shared.
        **options: Of MMEngine's metric.
    """

    kind = 'clip'

    def __init__(self, clip: str | ClipFeatures, **options: Any) -> None:
        super().__init__(clip_of(clip), **options)


@METRICS.register_module()
class DinoIdentity(Identity):
    """The subject as DINO sees it (arXiv 2208.12242).

    Args:
        dino: Hub id or folder, or features that are shared.
        **options: Of MMEngine's metric.
    """

    kind = 'dino'

    def __init__(
        self, dino: str | DinoFeatures = HUB_DINO, **options: Any
    ) -> None:
        features = DinoFeatures(dino) if isinstance(dino, str) else dino
        super().__init__(features, **options)


@METRICS.register_module()
class ImageNetIdentity(Identity):
    """The subject as a network of photographs sees it.

    Args:
        path: See :class:`ImageNetFeatures`.
        **options: Of MMEngine's metric.
    """

    kind = 'imagenet'

    def __init__(self, path: str | Path | None = None, **options: Any) -> None:
        super().__init__(ImageNetFeatures(path), **options)
