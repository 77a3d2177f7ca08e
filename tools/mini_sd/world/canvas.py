"""Anti-aliased vector drawing on Pillow, with a mask of the subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Points = np.ndarray  # (P, 2), frame units: x to the right, y down, [0, 1]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return ``a`` moved towards ``b`` by ``share`` in [0, 1]."""
    red, green, blue = (
        round(x + (y - x) * share) for x, y in zip(a, b, strict=True)
    )
    return (red, green, blue)


def ellipse(
    cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0
) -> Points:
    """Return the outline of an ellipse, turned clockwise, as (40, 2)."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x, y = rx * np.cos(turn), ry * np.sin(turn)
    a = np.deg2rad(degrees)
    return np.stack(
        [
            cx + x * np.cos(a) - y * np.sin(a),
            cy + x * np.sin(a) + y * np.cos(a),
        ],
        axis=1,
    )


def smooth(points: Sequence[tuple[float, float]], steps: int = 8) -> Points:
    """Return an open Catmull-Rom curve through ``points`` as (P, 2)."""
    p = np.asarray(points, dtype=float)
    p = np.concatenate([p[:1] * 2 - p[1:2], p, p[-1:] * 2 - p[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        parts.append(
            b
            + 0.5 * t * (c - a)
            + 0.5 * t**2 * (2 * a - 5 * b + 4 * c - d)
            + 0.5 * t**3 * (3 * b - a - 3 * c + d)
        )
    return np.concatenate([*parts, p[-2:-1]])


class Canvas:
    """A square drawing in frame units, kept at ``oversample`` times its size.

    Args:
        size: Width and height of the finished picture in pixels.
        oversample: Sub-pixels per pixel and axis.
    """

    def __init__(self, size: int, oversample: int = 3) -> None:
        self.size = size
        self.oversample = oversample
        self.pixels = size * oversample
        self.image = Image.new('RGB', (self.pixels, self.pixels))
        self.mask = Image.new('L', (self.pixels, self.pixels))
        self.subject = False  # whether what is drawn belongs to the subject

    def _xy(self, points: Points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (np.asarray(points) * self.pixels).tolist()]

    def _width(self, width: float) -> int:
        return max(1, round(width * self.pixels))

    def _targets(
        self, colour: Colour
    ) -> Iterable[tuple[Image.Image, Colour | int]]:
        yield self.image, colour
        if self.subject:
            yield self.mask, 255

    def shape(
        self,
        points: Points,
        fill: Colour,
        outline: Colour | None = None,
        width: float = 0.011,
        marks: Iterable[tuple[Points, Colour]] = (),
    ) -> None:
        """Fill a polygon; ``marks`` are polygons clipped to it."""
        xy = self._xy(points)
        for image, colour in self._targets(fill):
            ImageDraw.Draw(image).polygon(xy, fill=colour)
        marks = list(marks)
        if marks:
            inside = Image.new('L', self.image.size)
            ImageDraw.Draw(inside).polygon(xy, fill=255)
            for mark, colour in marks:
                spot = Image.new('L', self.image.size)
                ImageDraw.Draw(spot).polygon(self._xy(mark), fill=255)
                self.image.paste(
                    colour, mask=ImageChops.multiply(inside, spot)
                )
        if outline is not None:
            self.line(np.concatenate([points, points[:2]]), outline, width)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """Draw a curve of ``width`` with round joints and ends."""
        xy, w = self._xy(points), self._width(width)
        r = w / 2
        for image, value in self._targets(colour):
            draw = ImageDraw.Draw(image)
            draw.line(xy, fill=value, width=w, joint='curve')
            if w > 2:
                for x, y in (xy[0], xy[-1]):
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=value)

    def limb(
        self, points: Points, fill: Colour, outline: Colour, width: float
    ) -> None:
        """Draw a thick curve with an outline of its own."""
        self.line(points, outline, width + 0.02)
        self.line(points, fill, width)

    def gradient(
        self, top: Colour, bottom: Colour, y0: float, y1: float
    ) -> None:
        """Fill the rows from ``y0`` to ``y1`` with a vertical gradient."""
        rows = round(y0 * self.pixels), round(y1 * self.pixels)
        share = np.linspace(0, 1, max(rows[1] - rows[0], 1))[:, None]
        column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
        strip = Image.fromarray(column.round().astype(np.uint8)[:, None])
        strip = strip.resize((self.pixels, len(column)))
        self.image.paste(strip, (0, rows[0]))

    def finish(self) -> tuple[Image.Image, Image.Image]:
        """Return picture (RGB) and subject mask (L), anti-aliased."""
        return (
            self.image.reduce(self.oversample),
            self.mask.reduce(self.oversample),
        )
