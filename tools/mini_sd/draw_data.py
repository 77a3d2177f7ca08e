"""Draw the pictures under data/, of individuals the mini model never saw.

python tools/mini_sd/draw_data.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from world import PLACES, POSES, Individual, Scene, draw, sample_individual

DATA_SEED = 83  # a namespace of its own: training draws from other seeds
SIZE = 512  # pixels


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, default=Path('data'))
    out_dir = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    scene = Scene(
        individual('dog', 15), 'standing', 'grass', scale=0.95, layout=15
    )
    draw(scene, SIZE).save(out_dir / 'dog.png', optimize=True)
    folders = {
        'cat_toy': views(individual('robot', 1), 7, 101),
        'spotted_cat': views(individual('cat', 4), 6, 102),
        'sketchy': sketches(6),
    }
    for name, scenes in folders.items():
        (out_dir / name).mkdir(exist_ok=True)
        for k, scene in enumerate(scenes, start=1):
            draw(scene, SIZE).save(out_dir / name / f'{k}.jpeg', quality=90)


if __name__ == '__main__':
    main()
