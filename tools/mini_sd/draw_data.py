"""Draw the pictures under data/, of individuals the mini model never saw.

python tools/mini_sd/draw_data.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from world import Scene, draw, sample_individual

DATA_SEED = 83  # a namespace of its own: training draws from other seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, default=Path('data'))
    out_dir = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    dog = sample_individual(np.random.default_rng([DATA_SEED, 15]), 'dog')
    scene = Scene(dog, 'standing', 'grass', scale=0.95, layout=15)
    draw(scene, 512).save(out_dir / 'dog.png', optimize=True)


if __name__ == '__main__':
    main()
