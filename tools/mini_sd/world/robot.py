"""A toy robot: the mini world's family of toys."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, ellipse, mix
from .frame import Frame
from .scene import Scene

METAL: Colour = (206, 212, 220)
DARK: Colour = (58, 62, 74)


def _box(cx: float, cy: float, w: float, h: float) -> np.ndarray:
    """A rectangle with cut corners, centred, as (8, 2)."""
    c = 0.22 * min(w, h)
    x, y = w / 2, h / 2
    corners = [
        (-x + c, -y), (x - c, -y), (x, -y + c), (x, y - c),
        (x - c, y), (-x + c, y), (-x, y - c), (-x, -y + c),
    ]  # fmt: skip
    return np.array(corners) + (cx, cy)


def draw_robot(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    """Draw the toy; lying turns it on its side, jumping lifts it."""
    who, pose = scene.individual, scene.pose
    sitting, jumping = pose == 'sitting', pose == 'jumping'
    legs = 0.06 if sitting else 0.15
    lift = 0.10 if jumping else 0.0
    turn = 80.0 if pose == 'lying' else 0.0
    place = frame.turned(turn, (0.0, 0.22), (0.0, lift))
    body, trim = who.fur, who.mark
    edge = mix(body, (0, 0, 0), 0.55)
    wide = 0.34 * who.girth
    y0 = legs  # where the body starts
    for side in (-1, 1):
        x = side * wide * 0.28
        foot = 0.12 if sitting else 0.02
        canvas.limb(place([(x, y0 + 0.04), (x, 0.05)]), METAL, DARK, 0.07)
        shoe = _box(x + foot * 0.5, 0.035, 0.13 + foot * 0.5, 0.07)
        canvas.shape(place(shoe), trim, DARK)
        hand = (side * (wide / 2 + 0.12), y0 + (0.40 if jumping else 0.12))
        arm = [(side * wide / 2, y0 + 0.26), hand]
        canvas.limb(place(arm), METAL, DARK, 0.055)
        canvas.shape(place(ellipse(*hand, 0.045, 0.045)), trim, DARK)
    canvas.shape(place(_box(0, y0 + 0.17, wide, 0.34)), body, edge)
    canvas.shape(place(_box(0, y0 + 0.19, wide * 0.6, 0.16)), METAL, edge)
    for k, (_, v, r) in enumerate(who.spots[:4]):
        dot = ellipse(
            wide * (k - 1.2) * 0.15, y0 + 0.19 + v * 0.05, r * 0.1, r * 0.1
        )
        canvas.shape(place(dot), trim)
    head = y0 + 0.34 + 0.13 * who.head
    canvas.line(place([(0, head), (0, head + 0.19)]), DARK, 0.018)
    canvas.shape(place(ellipse(0, head + 0.19, 0.032, 0.032)), trim, DARK)
    canvas.shape(place(_box(0, head, 0.36 * who.head, 0.25)), body, edge)
    face = trim if who.eye_patch else METAL
    canvas.shape(place(_box(0, head, 0.27 * who.head, 0.16)), face, edge)
    for side in (-1, 1):
        eye = (side * 0.07, head + 0.02)
        canvas.shape(place(ellipse(*eye, 0.035, 0.035)), (255, 255, 255), DARK)
        canvas.shape(place(ellipse(*eye, 0.016, 0.016)), DARK)
    canvas.line(
        place([(-0.05, head - 0.05), (0.05, head - 0.05)]), DARK, 0.014
    )
    frame.anchor(
        'head', place([(0, head + 0.10)])[0], place([(0.0, head)])[0], 0.17
    )
    frame.anchor(
        'neck', place([(0, y0 + 0.34)])[0], place([(0, head)])[0], 0.17
    )
