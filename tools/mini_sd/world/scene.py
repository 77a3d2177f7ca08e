"""What a picture of the mini world shows, as plain data, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Colour

FURS: dict[str, Colour] = {
    'white': (248, 247, 243),
    'cream': (240, 216, 172),
    'golden': (226, 166, 70),
    'ginger': (206, 98, 44),
    'brown': (118, 74, 46),
    'gray': (146, 150, 160),
    'black': (50, 48, 56),
}
PAINTS: dict[str, Colour] = {
    'red': (214, 48, 49),
    'blue': (48, 104, 214),
    'green': (46, 158, 82),
    'yellow': (246, 206, 52),
    'purple': (140, 74, 184),
}
EYES: dict[str, tuple[Colour, ...]] = {
    'dog': ((70, 44, 30), (36, 28, 26)),
    'cat': ((96, 170, 70), (232, 184, 52), (72, 148, 206)),
}
SPECIES = ('dog', 'cat', 'robot')
POSES = ('standing', 'sitting', 'lying', 'jumping')
PLACES = ('grass', 'beach', 'snow', 'room', 'night')
ACCESSORIES = ('hat', 'scarf', 'ball')
STYLES = ('plain', 'sketch')
PATTERNS = ('plain', 'spotted', 'striped')
TAILS = ('long', 'short', 'curly')


@dataclass(frozen=True)
class Individual:
    """Who is drawn: everything that stays when pose and place change.

    Numbers are continuous, so an individual is richer than any caption of it.
    Spots live in the body's own frame, [-1, 1] x [-1, 1], as (u, v, radius).
    """

    species: str
    fur_name: str
    fur: Colour
    shade: int  # -1 darker, 0, +1 lighter than its name's usual colour
    mark_name: str
    mark: Colour
    pattern: str
    spots: tuple[tuple[float, float, float], ...]
    eye_patch: int  # -1 one eye, 0 none, 1 the other
    blaze: bool
    chest: bool
    socks: bool
    pointy_ears: bool
    ear_size: float
    marked_ears: bool
    tail: str
    muzzle: float
    girth: float  # 1 is usual; below slim, above chubby
    leg: float
    head: float
    eye: Colour
    collar_name: str | None

    @property
    def collar(self) -> Colour | None:
        """The collar's colour, None without a collar."""
        return PAINTS[self.collar_name] if self.collar_name else None


@dataclass(frozen=True)
class Scene:
    """One picture: an individual, what it does, where, and how it is drawn."""

    individual: Individual
    pose: str
    place: str
    accessory: str | None = None
    accessory_name: str = 'red'  # the accessory's colour
    second_accessory: str | None = None  # only a judge learns from two
    style: str = 'plain'
    flip: bool = False
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    layout: int = 0  # seed of the place's details: sun, hills, trees, stars

    @property
    def accessories(self) -> tuple[str, ...]:
        """All accessories, none to two."""
        both = (self.accessory, self.second_accessory)
        return tuple(name for name in both if name is not None)


def _jitter(
    rng: np.random.Generator, base: Colour, light: float, hue: float
) -> Colour:
    r, g, b = np.clip(
        np.asarray(base) * (1 + light) + rng.normal(0, hue, 3), 0, 255
    ).round()
    return (int(r), int(g), int(b))


def _spots(
    rng: np.random.Generator, pattern: str
) -> tuple[tuple[float, float, float], ...]:
    if pattern == 'plain':
        return ()
    count = int(rng.integers(3, 7))
    big = rng.random() < 0.5
    spots = []
    for k in range(count):  # one to a sector, so that they do not pile up
        u = -0.85 + 1.7 * (k + rng.random()) / count
        v = rng.uniform(-0.75, 0.35)
        spots.append((u, v, rng.uniform(0.26, 0.36) * (1.0 if big else 0.62)))
    return tuple(spots)


def sample_individual(
    rng: np.random.Generator, species: str | None = None
) -> Individual:
    """Draw an individual at random; the same generator state, the same one."""
    if species is None:
        species = str(rng.choice(SPECIES, p=(0.47, 0.43, 0.10)))
    if species == 'robot':
        fur_name, mark_name = (
            str(x) for x in rng.choice(list(PAINTS), 2, False)
        )
        base, mark_base, shade = PAINTS[fur_name], PAINTS[mark_name], 0
        light = 0.0
    else:
        fur_name = str(rng.choice(list(FURS)))
        far = [
            name
            for name in ('white', 'black', 'brown', 'ginger')
            if np.abs(np.subtract(FURS[name], FURS[fur_name])).sum() > 170
        ]
        mark_name = str(rng.choice(far))
        base, mark_base = FURS[fur_name], FURS[mark_name]
        shade = 0
        if fur_name in ('golden', 'ginger', 'brown', 'gray'):
            shade = int(rng.choice((-1, 0, 1), p=(0.3, 0.4, 0.3)))
        light = 0.17 * shade + rng.uniform(-0.04, 0.04)
    pattern = str(rng.choice(PATTERNS, p=(0.40, 0.36, 0.24)))
    collar = str(rng.choice(list(PAINTS))) if rng.random() < 0.6 else None
    eyes = EYES.get(species, EYES['dog'])
    return Individual(
        species=species,
        fur_name=fur_name,
        fur=_jitter(rng, base, light, 2.5),
        shade=shade,
        mark_name=mark_name,
        mark=_jitter(rng, mark_base, 0.0, 2.5),
        pattern=pattern,
        spots=_spots(rng, pattern),
        eye_patch=int(rng.choice((-1, 0, 1), p=(0.15, 0.7, 0.15))),
        blaze=bool(rng.random() < 0.2),
        chest=bool(rng.random() < 0.3),
        socks=bool(rng.random() < 0.3),
        pointy_ears=species != 'dog' or bool(rng.random() < 0.4),
        ear_size=float(rng.uniform(0.85, 1.25)),
        marked_ears=bool(rng.random() < 0.3),
        tail=str(rng.choice(TAILS)),
        muzzle=float(rng.uniform(0.85, 1.2)),
        girth=float(rng.choice((0.84, 1.0, 1.18)) * rng.uniform(0.96, 1.04)),
        leg=float(rng.uniform(0.9, 1.12)),
        head=float(rng.uniform(0.94, 1.08)),
        eye=eyes[int(rng.integers(len(eyes)))],
        collar_name=collar,
    )


def sample_scene(
    rng: np.random.Generator, individual: Individual | None = None
) -> Scene:
    """Draw a scene at random, of a given or of a random individual."""
    if individual is None:
        individual = sample_individual(rng)
    accessory = str(rng.choice(ACCESSORIES)) if rng.random() < 0.45 else None
    return Scene(
        individual=individual,
        pose=str(rng.choice(POSES)),
        place=str(rng.choice(PLACES)),
        accessory=accessory,
        accessory_name=str(rng.choice(list(PAINTS))),
        style='sketch' if rng.random() < 0.10 else 'plain',
        flip=bool(rng.random() < 0.5),
        scale=float(rng.uniform(0.9, 0.98)),
        shift=(
            float(rng.uniform(-0.03, 0.03)),
            float(rng.uniform(-0.02, 0.02)),
        ),
        layout=int(rng.integers(2**31)),
    )
