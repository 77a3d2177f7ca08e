"""The judge as a metric of ``mmhiper test``; it knows the mini world alone.

    _base_ = ['my_config.py', 'configs/_base_/mini_world_judge.py']

in a config, and this folder on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evaluate_textual_inversion import measure_pictures
from PIL import Image

from mmhiper.evaluation.learned import Drawn
from mmhiper.evaluation.metric import Report
from mmhiper.registry import METRICS

from judge import DEFAULT_PATH, load_judge


@METRICS.register_module()
class MiniWorldJudge:
    """Whether the judge sees the individual, and the place of the text.

    Args:
        path: Weights of a judge, by default those beside it.
    """

    def __init__(self, path: str | None = None) -> None:
        self.judge = load_judge(Path(path) if path else DEFAULT_PATH)

    def compare(
        self,
        sources: Sequence[Image.Image],
        drawn: Sequence[Drawn],
        about: Sequence[Sequence[int]],
    ) -> Report:
        """Asks about each group of sources for itself, and averages.

        Args:
            sources: What was learned from.
            drawn: Pictures of each prompt, both sides.
            about: The sources of each prompt.

        Returns:
            'learned' and 'plain', and how often the judge is right on drawings
            that it has not seen.
        """
        answers: dict[str, dict[str, list[float]]] = {
            'learned': {},
            'plain': {},
        }
        for own in sorted(set(map(tuple, about))):
            rows = [
                row
                for row, which in zip(drawn, about, strict=True)
                if tuple(which) == own
            ]
            texts, learned, plain = zip(*rows, strict=True)
            for side, pictures in (('learned', learned), ('plain', plain)):
                said = measure_pictures(
                    self.judge,
                    [sources[i] for i in own],
                    list(texts),
                    list(pictures),
                )
                for name, value in said.items():
                    answers[side].setdefault(name, []).extend(
                        [value] * len(rows)
                    )
        sides = {
            side: {name: float(np.mean(each)) for name, each in found.items()}
            for side, found in answers.items()
        }
        return {**sides, 'judge on unseen drawings': self.judge.accuracy}
