"""An edit, and how metrics of edits measure it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from PIL import Image
from torch import Tensor
from typing_extensions import override

from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import to_pil

Measures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Edited:
    """A picture before and after an edit, and what is known of both.

    Attributes:
        source: RGB, as the model saw it.
        edited: RGB, as large.
        source_text: What the source shows; may be empty.
        target_text: What the edit should show.
        mask: (H, W) bool, where the edit may change the picture; None where
            that is not known.
        goal: The right answer, where there is one.
        references: Pictures of the same subject; none stands for the source.
        others: Pictures of K - 1 other subjects, to be told from.
        asked: What is to be seen in the edit, by question.

    Raises:
        ValueError: If pictures or mask differ in size.
    """

    source: Image.Image
    edited: Image.Image
    source_text: str = ''
    target_text: str = ''
    mask: np.ndarray | None = None
    goal: Image.Image | None = None
    references: Sequence[Image.Image] = ()
    others: Sequence[Image.Image] = ()
    asked: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = [self.source.size, self.edited.size]
        if self.goal is not None:
            sizes.append(self.goal.size)
        if self.mask is not None:
            sizes.append((self.mask.shape[1], self.mask.shape[0]))
        if len(set(sizes)) > 1:
            raise UserError(
                'Pictures and mask of an edit must be of one size, but got '
                f'{", ".join(f"{w} x {h}" for w, h in sizes)}.'
            )

    @classmethod
    def of(cls, sample: Mapping[str, Any]) -> Edited:
        """Takes an edit from a data sample of MMEngine.

        Args:
            sample: By the names of the attributes; pictures may be tensors,
                (3, H, W) uint8 or in [-1, 1]. Other names are left alone.
        """
        known = {each.name for each in fields(cls)}
        given = {key: sample[key] for key in sample if key in known}
        for name in ('source', 'edited', 'goal'):
            if isinstance(given.get(name), Tensor):
                given[name] = to_pil(given[name])
        if isinstance(given.get('mask'), Tensor):
            given['mask'] = given['mask'].cpu().numpy() > 0
        return cls(**given)

    @property
    def background(self) -> np.ndarray | None:
        """Where nothing should change, (H, W) bool; None if nowhere."""
        if self.mask is None or self.mask.all():
            return None
        return ~self.mask

    def views(self) -> Iterator[tuple[str, Image.Image, Image.Image]]:
        """The pairs of pictures that a distance is taken of.

        Yields:
            What the name of the distance begins with, and two pictures: all
            of source and edit; 'background_', both black where the edit may
            change them, as PIE-Bench has it (arXiv 2310.01506); 'goal_', the
            right answer and the edit.
        """
        yield '', self.source, self.edited
        keep = self.background
        if keep is not None:
            yield (
                'background_',
                blackened(self.source, keep),
                blackened(self.edited, keep),
            )
        if self.goal is not None:
            yield 'goal_', self.goal, self.edited


def blackened(picture: Image.Image, keep: np.ndarray) -> Image.Image:
    """Makes a picture black but for a part.

    Args:
        picture: RGB.
        keep: (H, W) bool.
    """
    return Image.fromarray(np.asarray(picture) * keep[..., None])


def to_unit(picture: Image.Image) -> Tensor:
    """A picture as a tensor.

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    values = np.array(picture.convert('RGB'))
    return torch.from_numpy(values).permute(2, 0, 1)[None].float() / 255


class EditMetric(BaseMetric):
    """Measures edits one by one; in the manner of MMEngine, their means.

    Its data samples are edits by the names of :class:`Edited`. What cannot be
    said of an edit (of a background where its mask is full) is left out of
    that mean.

    Attributes:
        encoder: Whose features its numbers are of; empty for a formula.
    """

    default_prefix = 'edit'
    encoder = ''

    @abstractmethod
    def measure(self, edited: Edited) -> Measures:
        """Measures an edit.

        Returns:
            Numbers by name, of what can be said.
        """

    @override
    def process(
        self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]
    ) -> None:
        for sample in data_samples:
            self.results.append(self.measure(Edited.of(sample)))

    @override
    def compute_metrics(self, results: list[Measures]) -> Measures:
        names = dict.fromkeys(name for each in results for name in each)
        return {
            name: float(
                np.mean([each[name] for each in results if name in each])
            )
            for name in names
        }
