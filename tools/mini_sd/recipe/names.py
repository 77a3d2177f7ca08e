"""Proper names: a word for each individual, which only training knows.

In the captions of the wild a name tells of one person what no description
does, and so the text space of Stable Diffusion has room for individuals, which
is what a learned embedding is. Here a name is a row of the token table that a
small network computes from everything that makes an individual. It learns with
the text encoder and is left behind: what stays is a text encoder that carries,
and a U-Net that draws, whom a row or an embedding describes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from .drawings import COUNT, scene_seed
from world import SPECIES, Individual, sample_scene
from world.scene import PATTERNS, TAILS

NORM = 0.4  # of a row; those of words have about 0.25
NUMBERS = 57  # that make an individual
_SPOTS = 6  # at most


def features(who: Individual) -> np.ndarray:
    """Return what makes an individual as numbers of about one, (57,)."""
    spots = np.zeros((_SPOTS, 4))
    for spot, there in zip(who.spots, spots, strict=False):
        there[:] = (*spot, 0.3)
    colours = (who.fur, who.mark, who.eye, who.collar or (128, 128, 128))
    sizes = (who.ear_size, who.muzzle, who.girth, who.leg, who.head)
    marks = (who.blaze, who.chest, who.socks, who.marked_ears)
    return np.concatenate(
        [
            (np.concatenate(colours) - 128) / 64,
            (np.asarray(sizes) - 1) / 0.15,
            3 * spots.ravel(),
            [*marks, who.pointy_ears, who.collar is not None, who.eye_patch],
            [who.species == name for name in SPECIES],
            [who.pattern == name for name in PATTERNS],
            [who.tail == name for name in TAILS],
        ]
    ).astype(np.float32)


@cache
def everyone() -> tuple[np.ndarray, np.ndarray]:
    """Return all drawings' individuals as `features`, and who looks alike.

    Returns:
        (COUNT, 57), and the number of the group (COUNT,): individuals of one
        species and colour.
    """
    who = [sample_scene(scene_seed(i)).individual for i in range(COUNT)]
    kinds = [f'{one.species} {one.fur_name}' for one in who]
    groups = np.unique(kinds, return_inverse=True)[1]
    return np.stack([features(one) for one in who]), groups


class Names(nn.Module):
    """Individuals' features (B, F) to rows of the token table (B, D)."""

    def __init__(self, width: int, numbers: int = NUMBERS) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(numbers, 256),
            nn.SiLU(),
            nn.Linear(256, 256),
            nn.SiLU(),
            nn.Linear(256, width),
        )

    def forward(self, who: Tensor) -> Tensor:
        """Return rows of length ``NORM``."""
        return NORM * F.normalize(self.layers(who).float(), dim=-1)
