"""The five places, drawn behind the subject."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, ellipse, smooth

GROUND = 0.72  # the horizon, in frame units from the top


def _cloud(canvas: Canvas, x: float, y: float, colour: Colour) -> None:
    for dx, dy, r in (
        (-0.07, 0.0, 0.045),
        (0.0, -0.02, 0.06),
        (0.07, 0.0, 0.045),
    ):
        canvas.shape(ellipse(x + dx, y + dy, r * 1.3, r), colour)


def _hills(
    canvas: Canvas, rng: np.random.Generator, colour: Colour, height: float
) -> None:
    xs = np.linspace(-0.1, 1.1, 5)
    ys = GROUND - height * rng.uniform(0.3, 1.0, 5)
    top = smooth(list(zip(xs, ys, strict=True)))
    canvas.shape(np.concatenate([top, [[1.1, 1.0], [-0.1, 1.0]]]), colour)


def _fir(canvas: Canvas, x: float, size: float) -> None:
    for level in range(3):
        y, w = (
            GROUND + 0.01 - size * 0.28 * level,
            size * (0.34 - 0.08 * level),
        )
        canvas.shape(
            np.array([[x - w, y], [x + w, y], [x, y - size * 0.48]]),
            (72, 126, 112),
        )


def _grass(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient((126, 196, 246), (206, 236, 252), 0, GROUND)
    _cloud(
        canvas,
        rng.uniform(0.12, 0.88),
        rng.uniform(0.1, 0.24),
        (255, 255, 255),
    )
    _hills(canvas, rng, (142, 200, 106), 0.16)
    canvas.gradient((122, 192, 84), (88, 162, 64), GROUND, 1)


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient((134, 212, 250), (226, 244, 250), 0, 0.5)
    sun = ellipse(rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.2), 0.075, 0.075)
    canvas.shape(sun, (255, 226, 90))
    canvas.gradient((28, 142, 190), (92, 204, 214), 0.5, GROUND)
    canvas.gradient((244, 222, 160), (232, 202, 134), GROUND, 1)


def _snow(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient((176, 200, 226), (222, 232, 242), 0, GROUND)
    for x in (rng.uniform(0.02, 0.3), rng.uniform(0.7, 0.98)):
        _fir(canvas, x, rng.uniform(0.42, 0.6))
    canvas.gradient((238, 244, 252), (218, 228, 244), GROUND, 1)


def _room(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient((250, 214, 190), (246, 204, 178), 0, GROUND)
    x, y = rng.uniform(0.04, 0.64), rng.uniform(0.07, 0.14)
    window = np.array([[0, 0], [0.3, 0], [0.3, 0.3], [0, 0.3]]) + (x, y)
    canvas.shape(window, (170, 220, 246), (255, 255, 255), 0.026)
    for bar in (((0.15, 0), (0.15, 0.3)), ((0, 0.15), (0.3, 0.15))):
        canvas.line(np.array(bar) + (x, y), (255, 255, 255), 0.014)
    canvas.gradient((188, 128, 84), (164, 106, 66), GROUND, 1)
    canvas.line(np.array([[0, GROUND], [1, GROUND]]), (255, 246, 236), 0.02)


def _night(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient((24, 32, 84), (66, 82, 150), 0, GROUND)
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.2)
    canvas.shape(ellipse(x, y, 0.075, 0.075), (250, 244, 206))
    for star in rng.uniform((0.03, 0.03), (0.97, 0.5), (7, 2)):
        canvas.shape(ellipse(star[0], star[1], 0.011, 0.011), (240, 240, 255))
    canvas.gradient((62, 96, 104), (44, 72, 86), GROUND, 1)


_DRAW = {
    'grass': _grass,
    'beach': _beach,
    'snow': _snow,
    'room': _room,
    'night': _night,
}


def draw_place(canvas: Canvas, place: str, layout: int) -> None:
    """Fill the canvas with ``place``; ``layout`` seeds its details."""
    _DRAW[place](canvas, np.random.default_rng(layout))
