"""Dogs and cats: a body in profile, a face turned to the viewer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Points, ellipse, mix, smooth
from .frame import Frame
from .scene import Individual, Scene

Point = tuple[float, float]


@dataclass(frozen=True)
class Posture:
    """Where the parts go, in the subject's own frame (y up, ground at 0)."""

    body: tuple[float, float, float, float, float]  # x, y, rx, ry, degrees
    far_legs: tuple[tuple[Point, ...], ...]
    near_legs: tuple[tuple[Point, ...], ...]
    haunch: tuple[float, float, float, float] | None
    neck: Point
    head: Point
    tail: tuple[Point, float]  # base, direction in degrees


def _posture(pose: str, who: Individual) -> Posture:
    fat, up = who.girth, 0.27 * (who.leg - 1)
    if pose == 'standing':
        top = 0.30 + up
        return Posture(
            body=(-0.07, 0.36 + up, 0.265, 0.135 * fat, 4),
            far_legs=(
                ((-0.17, top), (-0.14, 0.03)),
                ((0.16, top), (0.19, 0.03)),
            ),
            near_legs=(
                ((-0.25, top), (-0.25, 0.03)),
                ((0.07, top), (0.08, 0.03)),
            ),
            haunch=None,
            neck=(0.10, 0.42 + up),
            head=(0.22, 0.595 + up),
            tail=((-0.30, 0.42 + up), 125),
        )
    if pose == 'sitting':
        return Posture(
            body=(-0.06, 0.28, 0.265, 0.155 * fat, 62),
            far_legs=(((0.13, 0.34), (0.17, 0.03)),),
            near_legs=(((0.05, 0.32), (0.07, 0.03)),),
            haunch=(-0.13, 0.145, 0.15 * fat, 0.13),
            neck=(0.04, 0.44),
            head=(0.09, 0.63),
            tail=((-0.24, 0.07), 165),
        )
    if pose == 'lying':
        return Posture(
            body=(-0.10, 0.145, 0.30, 0.125 * fat, 0),
            far_legs=(((0.12, 0.09), (0.34, 0.075)),),
            near_legs=(((0.06, 0.07), (0.30, 0.04)),),
            haunch=(-0.24, 0.125, 0.14 * fat, 0.115),
            neck=(0.12, 0.20),
            head=(0.20, 0.36),
            tail=((-0.37, 0.10), 150),
        )
    return Posture(
        body=(-0.06, 0.40, 0.255, 0.13 * fat, 22),
        far_legs=(
            ((-0.20, 0.31), (-0.30, 0.18)),
            ((0.13, 0.45), (0.33, 0.42)),
        ),
        near_legs=(
            ((-0.24, 0.30), (-0.38, 0.21)),
            ((0.10, 0.40), (0.32, 0.32)),
        ),
        haunch=None,
        neck=(0.10, 0.49),
        head=(0.19, 0.645),
        tail=((-0.28, 0.35), 158),
    )


def _body_marks(who: Individual, posture: Posture) -> Iterator[Points]:
    """Polygons of the marks on the body, in the subject's own frame."""
    x, y, rx, ry, degrees = posture.body
    a = np.deg2rad(degrees)

    def at(u: float, v: float) -> Point:
        du, dv = u * rx, -v * ry
        return (
            x + du * np.cos(a) - dv * np.sin(a),
            y + du * np.sin(a) + dv * np.cos(a),
        )

    if who.pattern == 'spotted':
        for u, v, r in who.spots:
            yield ellipse(*at(u, v), r * 0.25, r * 0.22, degrees)
    elif who.pattern == 'striped':
        for k in range(4):
            u = -0.72 + 0.42 * k + 0.0
            yield ellipse(*at(u, -0.45), 0.026, ry * 0.9, degrees + 8)
    if who.chest:
        yield ellipse(*at(0.92, 0.35), 0.10, 0.12, degrees)


def _tail(
    canvas: Canvas, frame: Frame, who: Individual, post: Posture
) -> None:
    (x, y), degrees = post.tail
    a = np.deg2rad(degrees)
    along = np.array([np.cos(a), np.sin(a)])
    side = np.array([-along[1], along[0]]) * -1
    length = {'long': 0.22, 'short': 0.10, 'curly': 0.15}[who.tail]
    steps = {
        'long': ((0, 0), (0.5, 0.10), (1.0, 0.30)),
        'short': ((0, 0), (0.5, 0.0), (1.0, 0.05)),
        'curly': ((0, 0), (0.7, 0.0), (1.0, 0.55), (0.55, 0.85), (0.2, 0.5)),
    }[who.tail]
    points = [(x, y) + length * (s * along + t * side) for s, t in steps]
    width = 0.045 if who.species == 'cat' else 0.058
    curve = frame(smooth([(p[0], max(p[1], 0.03)) for p in points]))
    canvas.limb(curve, who.fur, _edge(who), width)
    if who.socks:  # a marked tip goes with marked paws
        canvas.line(curve[-max(3, len(curve) // 4) :], who.mark, width)


def _edge(who: Individual) -> Colour:
    return mix(who.fur, (28, 20, 24), 0.62)


def _leg(
    canvas: Canvas,
    frame: Frame,
    who: Individual,
    points: tuple[Point, ...],
    far: bool,
) -> None:
    fill = mix(who.fur, (20, 14, 30), 0.20) if far else who.fur
    width = 0.076
    canvas.limb(frame(points), fill, _edge(who), width)
    (x0, y0), (x, y) = points
    paw = who.mark if who.socks else fill
    if who.socks:
        sock = [(x + (x0 - x) * 0.34, y + (y0 - y) * 0.34), (x, y)]
        canvas.line(frame(sock), paw, width)
    toe = (x + 0.02, max(y, 0.033))
    canvas.shape(frame(ellipse(*toe, 0.056, 0.036)), paw, _edge(who))


def _ears(canvas: Canvas, who: Individual, place, r: float) -> None:
    fill = who.mark if who.marked_ears else mix(who.fur, (30, 18, 20), 0.16)
    edge, size = _edge(who), who.ear_size
    for side in (-1, 1):
        if who.pointy_ears:
            ear = np.array(
                [(0.93, 0.32), (0.86, 1.02 + 0.36 * size), (0.16, 0.84)]
            )
            inner = ear * 0.62 + ear.mean(0) * 0.38 - (0, 0.06)
            scale = (side * r, r)
            canvas.shape(place(ear * scale), fill, edge)
            pink = mix((238, 150, 150), who.fur, 0.25)
            canvas.shape(place(inner * scale), pink)
        else:
            ear = ellipse(
                side * 0.98 * r,
                (0.16 - 0.32 * size) * r + 0.1 * r,
                0.30 * r,
                0.66 * size * r,
                side * 16,
            )
            canvas.shape(place(ear), fill, edge)


def _head(canvas: Canvas, frame: Frame, who: Individual, at: Point) -> None:
    r = 0.165 * who.head
    edge, cat = _edge(who), who.species == 'cat'

    def place(points) -> Points:
        return frame(np.asarray(points) + at)

    wide, tall = (1.12, 0.90) if cat else (1.0, 0.96)
    if who.pointy_ears:
        _ears(canvas, who, place, r)
    marks = []
    if who.eye_patch:
        x = who.eye_patch * 0.42 * r
        marks.append(
            (place(ellipse(x, 0.14 * r, 0.37 * r, 0.42 * r)), who.mark)
        )
    if who.blaze:
        marks.append(
            (place(ellipse(0, 0.55 * r, 0.15 * r, 0.75 * r)), who.mark)
        )
    if who.pattern == 'striped':
        for x in (-0.34, 0.0, 0.34):
            bar = ellipse(x * r, 0.86 * r, 0.07 * r, 0.30 * r, -x * 50)
            marks.append((place(bar), who.mark))
    canvas.shape(
        place(ellipse(0, 0, wide * r, tall * r)), who.fur, edge, marks=marks
    )
    if not who.pointy_ears:
        _ears(canvas, who, place, r)
    _face(canvas, who, place, r, cat)


def _face(canvas: Canvas, who: Individual, place, r: float, cat: bool) -> None:
    dark: Colour = (38, 26, 30)
    pale = mix(who.fur, (255, 250, 242), 0.55)
    m = who.muzzle
    if cat:
        for side in (-1, 1):
            cheek = ellipse(side * 0.17 * r, -0.34 * r, 0.25 * r * m, 0.2 * r)
            canvas.shape(place(cheek), pale)
        nose = np.array([(-0.12, -0.16), (0.12, -0.16), (0.0, -0.30)]) * r
        canvas.shape(place(nose), (228, 120, 130), dark, 0.005)
    else:
        snout = ellipse(0, -0.38 * r, 0.46 * r * m, 0.36 * r * m)
        canvas.shape(place(snout), pale, mix(pale, dark, 0.35), 0.006)
        canvas.shape(place(ellipse(0, -0.2 * r, 0.19 * r, 0.14 * r)), dark)
    low = -0.5 * r if not cat else -0.44 * r
    for side in (-1, 1):
        smile = smooth(
            [
                (0, low + 0.1 * r),
                (side * 0.1 * r, low),
                (side * 0.22 * r, low + 0.05 * r),
            ]
        )
        canvas.line(place(smile), dark, 0.009)
        x, y = side * 0.42 * r, 0.14 * r
        white = who.eye if cat else (255, 255, 255)
        canvas.shape(
            place(ellipse(x, y, 0.21 * r, 0.235 * r)), white, dark, 0.008
        )
        iris = (24, 20, 24) if cat else who.eye
        pupil = (0.085, 0.19) if cat else (0.14, 0.17)
        canvas.shape(place(ellipse(x, y, pupil[0] * r, pupil[1] * r)), iris)
        glint = ellipse(x + 0.06 * r, y + 0.08 * r, 0.06 * r, 0.06 * r)
        canvas.shape(place(glint), (255, 255, 255))
        if cat:
            for tilt in (0.02, -0.12):
                whisker = [
                    (side * 0.42 * r, -0.32 * r),
                    (side * 1.3 * r, (-0.32 + tilt * 1.6) * r),
                ]
                canvas.line(place(whisker), (250, 250, 250), 0.006)


def _collar(
    canvas: Canvas, frame: Frame, who: Individual, post: Posture
) -> None:
    if who.collar is None:
        return
    n, h = np.asarray(post.neck), np.asarray(post.head)
    along = (h - n) / np.linalg.norm(h - n)
    side = np.array([along[1], -along[0]])
    middle = n + (h - n) * 0.30
    band = smooth(
        [
            middle + side * 0.125 * s - along * 0.035 * (1 - s * s)
            for s in (-1, 0, 1)
        ]
    )
    canvas.limb(
        frame(band), who.collar, mix(who.collar, (0, 0, 0), 0.5), 0.042
    )
    tag = middle - along * 0.065 + side * 0.02
    canvas.shape(
        frame(ellipse(tag[0], tag[1], 0.026, 0.026)),
        (255, 214, 74),
        (120, 84, 20),
        0.006,
    )


def draw_animal(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    """Draw the dog or cat of ``scene``, far parts first."""
    who = scene.individual
    post = _posture(scene.pose, who)
    edge = _edge(who)
    _tail(canvas, frame, who, post)
    for leg in post.far_legs:
        _leg(canvas, frame, who, leg, far=True)
    if post.haunch is None:
        for leg in post.near_legs[:1]:
            _leg(canvas, frame, who, leg, far=False)
    body = ellipse(*post.body)
    marks = [(frame(m), who.mark) for m in _body_marks(who, post)]
    canvas.shape(frame(body), who.fur, edge, marks=marks)
    if post.haunch is not None:
        x, y, rx, ry = post.haunch
        canvas.shape(frame(ellipse(x, y, rx, ry)), who.fur, edge)
        paw = who.mark if who.socks else who.fur
        canvas.shape(frame(ellipse(x + 0.11, 0.036, 0.085, 0.038)), paw, edge)
    for leg in post.near_legs[-1:]:
        _leg(canvas, frame, who, leg, far=False)
    neck = np.array([post.neck, post.head])
    canvas.line(frame(neck), who.fur, 0.19)
    _collar(canvas, frame, who, post)
    _head(canvas, frame, who, post.head)
    r = 0.165 * who.head
    head = np.asarray(post.head)
    up = head + (0, 0.72 * r)
    frame.anchor('head', frame([up])[0], frame([head])[0], r)
    n = np.asarray(post.neck) * 0.62 + head * 0.38
    frame.anchor('neck', frame([n])[0], frame([head])[0], r)
