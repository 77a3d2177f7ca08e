"""Compare changes of the recipe: short runs of equal time, one loss.

    python tools/mini_sd/short_runs.py --minutes 4

Each run goes on from the state of the U-Net's training, which stays as it is,
at a falling rate, with one change. The loss of its moving average on unseen
drawings, always the same noise, says what the change is worth.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
import torch
from recipe import unet
from recipe.common import Log, load

BINS = 20  # of the noise schedule, for a draw by loss
# Each change: what constants of recipe/unet.py become.
CHANGES: dict[str, dict[str, Any]] = {
    'none': {},
    'fp32 arithmetic': {'autocast': contextlib.nullcontext},
    'batch 16': {'BATCH': 16},
    'batch 64, rate x 1.4': {'BATCH': 64, 'RATE': 1.4 * unet.RATE},
    'rate x 0.5': {'RATE': 0.5 * unet.RATE},
    'rate x 2': {'RATE': 2 * unet.RATE},
    'rate that stays': {'falls': False},
    'EMA of 0.99': {'EMA_DECAY': 0.99},
    'EMA of 0.9999': {'EMA_DECAY': 0.9999},
    'timesteps by loss': {'draw_times': 'by loss'},
}


@torch.no_grad()
def root_losses(work_dir: Path) -> np.ndarray:
    """Root mean square of the loss in each bin of the schedule, (BINS,)."""
    model = unet.build_unet().eval()
    model.load_state_dict(load(work_dir / 'unet_state.pth')['average'])
    data = unet.Noised(work_dir)
    rng = np.random.default_rng(unet.SEED)
    width = unet.STEPS // BINS
    means = []
    for k in range(BINS):
        index = rng.integers(0, len(data.latents), 2 * unet.BATCH)
        times = rng.integers(k * width, (k + 1) * width, len(index))
        losses = data.losses(model, index, times, rng)
        means.append(float(losses.square().mean().sqrt()))
    return np.array(means)


def by_loss(
    rng: np.random.Generator, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw timesteps where the loss is large, see :func:`unet.evenly`."""
    bins = rng.choice(BINS, unet.BATCH, p=shares)
    width = unet.STEPS // BINS
    times = bins * width + rng.integers(0, width, unet.BATCH)
    return times, 1 / (BINS * shares[bins])


def run(name: str, work_dir: Path, minutes: float, log: Log) -> None:
    """Train with one change, tell its loss, and leave nothing behind."""
    change = dict(CHANGES[name])
    schedule: dict[str, Any] = {'falls': change.pop('falls', True)}
    if change.pop('draw_times', None):
        shares = root_losses(work_dir)
        schedule['draw_times'] = partial(by_loss, shares=shares / shares.sum())
    kept = {key: getattr(unet, key) for key in change}
    for key, value in change.items():
        setattr(unet, key, value)
    try:
        unet._train('try', work_dir, minutes, log, begin='unet', **schedule)
    finally:
        for key, value in kept.items():
            setattr(unet, key, value)
        for file in ('try_state.pth', 'try.pth'):
            (work_dir / file).unlink(missing_ok=True)
        torch._dynamo.reset()


def main() -> None:
    """Parse the command line and run the changes asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/mini_sd')
    )
    parser.add_argument('--minutes', type=float, default=4.0, help='each')
    parser.add_argument(
        '--changes', nargs='+', choices=CHANGES, default=list(CHANGES)
    )
    args = parser.parse_args()
    log = Log(args.work_dir)
    for name in args.changes:
        log(f'try: {name}')
        run(name, args.work_dir, 1e-3, log)  # compiles, which is not to count
        run(name, args.work_dir, args.minutes, log)


if __name__ == '__main__':
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
    main()
