"""Draw the pictures under data/, of individuals the mini model never saw.

python tools/mini_sd/draw_data.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from world import FURS, PAINTS, Scene, draw, sample_individual

DATA_SEED = 83  # a namespace of its own: training draws from other seeds
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


def draw_case(name: str, size: int = 512) -> Image.Image:
    """Draws a picture of the table of cases."""
    number = 100 + list(CASES).index(name)
    species, colour, pose, place, accessory, paint = CASES[name]
    who = sample_individual(
        np.random.default_rng([DATA_SEED, number]), species
    )
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
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, default=Path('data'))
    out_dir = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    dog = sample_individual(np.random.default_rng([DATA_SEED, 15]), 'dog')
    scene = Scene(dog, 'standing', 'grass', scale=0.95, layout=15)
    draw(scene, 512).save(out_dir / 'dog.png', optimize=True)
    cases = out_dir / 'style_diffusion'
    cases.mkdir(exist_ok=True)
    for name in CASES:
        draw_case(name).save(cases / f'{name}.png', optimize=True)


if __name__ == '__main__':
    main()
