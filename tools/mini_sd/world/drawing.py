"""From a scene to pixels."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageFilter, ImageOps

from .accessories import draw_accessory
from .animal import draw_animal
from .canvas import Canvas, ellipse
from .frame import Frame
from .places import draw_place
from .robot import draw_robot
from .scene import Scene

_SHADOW = {
    'grass': (76, 140, 58),
    'beach': (206, 176, 112),
    'snow': (190, 204, 226),
    'room': (134, 84, 52),
    'night': (34, 56, 70),
}


def _sketch(picture: Image.Image) -> Image.Image:
    """Turn a finished picture into pencil on paper: pale tones, dark edges."""
    grey = ImageOps.grayscale(picture)
    pen = 2 * round(picture.width / 128) + 1  # pixels, odd as the filters ask
    edges = ImageChops.difference(
        grey, grey.filter(ImageFilter.MaxFilter(pen))
    )
    tone = grey.point(lambda v: 206 + v * 0.19)
    lines = edges.point(lambda v: min(255, v * 1.6))
    return ImageOps.colorize(
        ImageChops.subtract(tone, lines), (44, 42, 50), (252, 249, 240)
    )


def draw_with_mask(
    scene: Scene, size: int = 128
) -> tuple[Image.Image, Image.Image]:
    """Draw ``scene``.

    Args:
        scene: What to draw.
        size: Width and height in pixels.

    Returns:
        The picture (RGB) and the subject's mask (L, 255 = animal or toy with
        its accessory), both ``size`` x ``size``.
    """
    canvas = Canvas(size)
    draw_place(canvas, scene.place, scene.layout)
    frame = Frame(scene.flip, scene.scale, scene.shift)
    wide = {'standing': 0.33, 'sitting': 0.27, 'lying': 0.4, 'jumping': 0.26}
    shadow = ellipse(-0.02, 0.0, wide[scene.pose], 0.035)
    canvas.shape(frame(shadow), _SHADOW[scene.place])
    canvas.subject = True
    robot = scene.individual.species == 'robot'
    (draw_robot if robot else draw_animal)(canvas, scene, frame)
    draw_accessory(canvas, scene, frame)
    picture, mask = canvas.finish()
    return (_sketch(picture) if scene.style == 'sketch' else picture), mask


def draw(scene: Scene, size: int = 128) -> Image.Image:
    """Draw ``scene`` as an RGB picture of ``size`` x ``size`` pixels."""
    return draw_with_mask(scene, size)[0]
