"""Draw the pictures under data/, of individuals the mini model never saw.

python tools/mini_sd/draw_data.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
from PIL import Image

from world import (
    FURS,
    PAINTS,
    PLACES,
    POSES,
    Individual,
    Scene,
    draw,
    sample_individual,
)

DATA_SEED = 83  # a namespace of its own: training draws from other seeds
SIZE = 512  # pixels
# The pictures of data/style_diffusion_cases.csv, which says the same in
# words: species, colour, pose, place, accessory and its colour.
CASES = {
    'brown_dog': ('dog', 'brown', 'standing', 'grass', None, 'red'),
    'white_cat': ('cat', 'white', 'sitting', 'snow', None, 'red'),
    'golden_dog': ('dog', 'golden', 'lying', 'beach', None, 'red'),
    'gray_cat': ('cat', 'gray', 'sitting', 'room', None, 'red'),
    'ginger_cat': ('cat', 'ginger', 'standing', 'snow', 'scarf', 'red'),
    'white_dog': ('dog', 'white', 'standing', 'grass', None, 'red'),
    'blue_robot': ('robot', 'blue', 'standing', 'room', None, 'red'),
    'black_dog': ('dog', 'black', 'sitting', 'beach', 'ball', 'yellow'),
}


def views(who: Individual, count: int, seed: int) -> list[Scene]:
    """One individual in ``count`` poses and places, no two alike."""
    rng = np.random.default_rng([DATA_SEED, seed])
    start = int(rng.integers(len(PLACES)))
    return [
        Scene(
            who,
            POSES[k % len(POSES)],
            PLACES[(start + k) % len(PLACES)],
            flip=bool(k % 2),
            scale=float(rng.uniform(0.9, 0.98)),
            shift=(float(rng.uniform(-0.03, 0.03)), 0.0),
            layout=int(rng.integers(2**31)),
        )
        for k in range(count)
    ]


def sketches(count: int) -> list[Scene]:
    """Pencil sketches of different individuals: a style, no concept."""
    scenes = []
    for k in range(count):
        rng = np.random.default_rng([DATA_SEED, 300 + k])
        who = sample_individual(rng, ('dog', 'cat')[k % 2])
        scenes.append(
            Scene(
                who,
                POSES[k % len(POSES)],
                PLACES[k % len(PLACES)],
                style='sketch',
                flip=bool(rng.random() < 0.5),
                scale=0.95,
                layout=int(rng.integers(2**31)),
            )
        )
    return scenes


def individual(species: str, seed: int) -> Individual:
    """An individual with a seed of its own."""
    return sample_individual(np.random.default_rng([DATA_SEED, seed]), species)


def draw_case(name: str, size: int = SIZE) -> Image.Image:
    """Draws a picture of the table of cases."""
    number = 100 + list(CASES).index(name)
    species, colour, pose, place, accessory, paint = CASES[name]
    who = individual(species, number)
    # what the captions of the table leave out is not there
    who = replace(
        who,
        fur_name=colour,
        fur=(PAINTS if species == 'robot' else FURS)[colour],
        pattern='plain',
        spots=(),
        collar_name=None,
    )
    scene = Scene(who, pose, place, accessory, paint, layout=number)
    return draw(scene, size)


def main() -> None:
    """Draw them into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, default=Path('data'))
    out_dir = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    scene = Scene(
        individual('dog', 15), 'standing', 'grass', scale=0.95, layout=15
    )
    draw(scene, SIZE).save(out_dir / 'dog.png', optimize=True)
    folders = {
        'cat_toy': views(individual('robot', 19), 7, 101),
        'spotted_cat': views(individual('cat', 4), 6, 102),
        'sketchy': sketches(6),
    }
    for name, scenes in folders.items():
        (out_dir / name).mkdir(exist_ok=True)
        for k, scene in enumerate(scenes, start=1):
            draw(scene, SIZE).save(out_dir / name / f'{k}.jpeg', quality=90)
    cases = out_dir / 'style_diffusion'
    cases.mkdir(exist_ok=True)
    for name in CASES:
        draw_case(name).save(cases / f'{name}.png', optimize=True)


if __name__ == '__main__':
    main()
