"""Hat, scarf and ball."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, ellipse, mix, smooth
from .frame import Frame
from .scene import PAINTS, Scene


def _axes(
    at: np.ndarray, towards: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors up (away from ``towards``) and to the side."""
    up = at - towards
    up = up / max(float(np.linalg.norm(up)), 1e-6)
    return up, np.array([-up[1], up[0]])


def _hat(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    at, towards, r = frame.anchors['head']
    up, side = _axes(at, towards)
    r = r * frame.scale
    paint = PAINTS[scene.accessory_name]
    edge = mix(paint, (0, 0, 0), 0.5)

    def place(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array([at + side * x * r + up * y * r for x, y in points])

    crown = [(-0.62, 0.0), (-0.5, 0.95), (0.5, 0.95), (0.62, 0.0)]
    canvas.shape(place(crown), paint, edge)
    band = [(-0.61, 0.06), (-0.58, 0.3), (0.58, 0.3), (0.61, 0.06)]
    canvas.shape(place(band), mix(paint, (255, 255, 255), 0.7))
    brim = [(-1.05, -0.02), (1.05, -0.02)]
    canvas.limb(place(brim), paint, edge, 0.045 * frame.scale)


def _scarf(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    at, towards, r = frame.anchors['neck']
    up, side = _axes(towards, at)  # towards the head
    r = r * frame.scale
    paint = PAINTS[scene.accessory_name]
    edge = mix(paint, (0, 0, 0), 0.5)
    light = mix(paint, (255, 255, 255), 0.7)

    def place(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array([at + side * x * r + up * y * r for x, y in points])

    end = smooth([tuple(p) for p in place([(-0.25, -0.2), (-0.3, -1.0)])])
    canvas.limb(end, paint, edge, 0.075 * frame.scale)
    canvas.line(end[-2:], light, 0.075 * frame.scale)
    wrap = place([(-0.82, 0.02), (0.0, -0.22), (0.82, 0.02)])
    canvas.limb(
        smooth([tuple(p) for p in wrap]), paint, edge, 0.085 * frame.scale
    )


def _ball(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    paint = PAINTS[scene.accessory_name]
    x, y, r = 0.40, 0.085, 0.085
    white = (250, 250, 250)
    stripe = frame(ellipse(x, y, r * 0.32, r * 1.1, 20))
    ball = frame(ellipse(x, y, r, r))
    canvas.shape(
        ball, paint, mix(paint, (0, 0, 0), 0.5), marks=[(stripe, white)]
    )


_DRAW = {'hat': _hat, 'scarf': _scarf, 'ball': _ball}


def draw_accessory(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    """Draw the scene's accessories, if it has any, onto its subject."""
    for name in scene.accessories:
        _DRAW[name](canvas, scene, frame)
