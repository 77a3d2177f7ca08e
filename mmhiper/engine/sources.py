"""What a training learns from, shown as the model sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmengine.dataset import pseudo_collate
from torch import Tensor

from mmhiper.utils.pixels import source_panel
from mmhiper.utils.sheet import Panel


@dataclass(frozen=True)
class Sources:
    """Pictures of a dataset.

    Attributes:
        panels: Captions and pictures; what the loss does not count (outside
            the mask, padding) is faded.
        pixels: The same, (B, 3, S, S) in [-1, 1].
    """

    panels: list[Panel]
    pixels: Tensor


def sources_of(dataset: Any, preprocess: Callable[..., Any]) -> Sources:
    """Takes the pictures that stand for what is learned.

    Args:
        dataset: Its ``examples`` say which; of a dataset without it is the
            first.
        preprocess: The data preprocessor of the editor.

    Returns:
        Unmirrored.
    """
    examples: dict[str, int] = getattr(dataset, 'examples', {'': 0})
    batch = pseudo_collate([dataset[index] for index in examples.values()])
    seen = preprocess(batch, training=False)
    panels = []
    for start, pixels, sample in zip(
        examples, seen['inputs'], seen['data_samples'], strict=True
    ):
        caption, picture = source_panel(pixels, sample.get('loss_mask'))
        panels.append((start + caption, picture))
    return Sources(panels, seen['inputs'])
