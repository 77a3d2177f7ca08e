"""The mini world: drawn dogs, cats and toy robots, and what is said of them.

Every picture is a `Scene`: an `Individual` (its identity: fur, marks, ears,
tail, build, collar), a pose, a place, perhaps an accessory, and a style.
"""

from .captions import caption
from .drawing import draw, draw_with_mask
from .scene import (
    ACCESSORIES,
    FURS,
    PAINTS,
    PLACES,
    POSES,
    SPECIES,
    Individual,
    Scene,
    sample_individual,
    sample_scene,
)

__all__ = [
    'ACCESSORIES',
    'FURS',
    'PAINTS',
    'PLACES',
    'POSES',
    'SPECIES',
    'Individual',
    'Scene',
    'caption',
    'draw',
    'draw_with_mask',
    'sample_individual',
    'sample_scene',
]
