"""The judge as a metric; it knows the mini world alone.

Of ``mmhiper test``:

    _base_ = ['my_config.py', 'configs/_base_/mini_world_judge.py']

in a config; of ``mmhiper bench``:

    --metrics configs/_base_/mini_world_bench.py

and this folder on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evaluate_textual_inversion import measure_pictures
from PIL import Image
from torch import Tensor
from typing_extensions import override

from mmhiper.evaluation import Edited, Identity
from mmhiper.evaluation.edited import Measures
from mmhiper.evaluation.learned import Drawn
from mmhiper.evaluation.metric import Report
from mmhiper.registry import METRICS

from judge import DEFAULT_PATH, Judge, load_judge


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


class JudgeFeatures:
    """Who the judge sees in pictures.

    Args:
        judge: The judge.
    """

    name = 'the judge of the mini world'

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def images(self, images: list[Image.Image]) -> Tensor:
        """Encodes B pictures: (B, 64) of length one."""
        return self.judge.look(images)[1]


@METRICS.register_module()
class MiniWorldEdit(Identity):
    """Whether the judge sees in an edit all that was asked, and who it is.

    Beside the numbers of :class:`Identity` there is ``success_judge``, 1 where
    every question of a case is answered as it asks, else 0.

    Args:
        path: Weights of a judge, by default those beside it.
    """

    kind = 'judge'

    def __init__(self, path: str | None = None) -> None:
        self.judge = load_judge(Path(path) if path else DEFAULT_PATH)
        super().__init__(JudgeFeatures(self.judge))

    @override
    def measure(self, edited: Edited) -> Measures:
        measures = super().measure(edited)
        if edited.asked:
            (said,), _ = self.judge.look([edited.edited])
            measures['success_judge'] = float(
                all(
                    said.get(key) == value
                    for key, value in edited.asked.items()
                )
            )
        return measures
