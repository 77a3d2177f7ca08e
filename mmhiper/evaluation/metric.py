"""What a config may name as ``test_metrics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from mmhiper.evaluation.learned import Drawn
from mmhiper.registry import METRICS

# By side ('learned', 'plain', or a further one that stands for itself).
Report = dict[str, dict[str, float]]


class PictureMetric(Protocol):
    """Measures the pictures of a test; registered in ``METRICS``."""

    def compare(
        self,
        sources: Sequence[Image.Image],
        drawn: Sequence[Drawn],
        about: Sequence[Sequence[int]],
    ) -> Report:
        """Measures pictures with what was learned and without.

        Args:
            sources: What it was learned from.
            drawn: See :func:`draw_comparison`.
            about: Which of the sources each prompt is about.

        Returns:
            'learned' and 'plain', with the same names; a further entry says
            how far the metric itself can be trusted.
        """


def build_metrics(config: Mapping[str, Any]) -> list[PictureMetric]:
    """Builds what a config names.

    Args:
        config: Its ``test_metrics`` are dicts with a ``type``.

    Returns:
        None where it names none.
    """
    return [METRICS.build(each) for each in config.get('test_metrics') or ()]
