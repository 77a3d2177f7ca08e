"""From the subject's own frame to the picture's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

Anchor = tuple[np.ndarray, np.ndarray, float]


class Frame:
    """Places a subject: own frame (origin on the ground, y up) -> picture.

    Args:
        flip: Look to the left instead of the right.
        scale: Size, 1 is usual.
        shift: Offset in frame units.
    """

    BASE = 0.92  # the ground under the subject, in frame units from the top

    def __init__(
        self, flip: bool, scale: float, shift: tuple[float, float]
    ) -> None:
        self._sign = -1.0 if flip else 1.0
        self.scale = scale
        self._shift = shift
        self.anchors: dict[str, Anchor] = {}

    def __call__(self, points: ArrayLike) -> np.ndarray:
        """Points (n, 2) of the subject as points of the picture."""
        p = np.asarray(points, dtype=float)
        x = 0.5 + self._shift[0] + self._sign * self.scale * p[:, 0]
        y = self.BASE + self._shift[1] - self.scale * p[:, 1]
        return np.stack([x, y], axis=1)

    def turned(
        self,
        degrees: float,
        about: tuple[float, float] = (0.0, 0.0),
        lift: tuple[float, float] = (0.0, 0.0),
    ) -> Callable[[ArrayLike], np.ndarray]:
        """Return a map that turns about a point, lifts, and then places."""
        a = np.deg2rad(degrees)
        turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])

        def place(
            points: ArrayLike,
        ) -> np.ndarray:
            p = (np.asarray(points, dtype=float) - about) @ turn.T
            return self(p + about + lift)

        return place

    def anchor(
        self, name: str, at: np.ndarray, towards: np.ndarray, size: float
    ) -> None:
        """Remember where an accessory goes: a point, a direction, a size."""
        self.anchors[name] = (at, towards, size)
