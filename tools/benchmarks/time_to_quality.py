"""How good edits are after how much training, by the judge of the mini world.

    python tools/benchmarks/time_to_quality.py

HiPer learns 20 individuals by each of ``--configs``, by default the paper's
setting alone, with three seeds, and draws their edits from some of the
snapshots on the way. A point of the curve is the mean over the seeds, its bar
their standard deviation.

Compute is told in two ways. *Draws* are the noised pictures that an image's
gradients have been taken of: no time, the same on every machine. *Seconds* are
those of a run of one image on this machine, by the median of its steps, which
are timed at the end: leave the machine idle then, or use ``--no-timing``.

Each point is a line of ``points.jsonl`` in a folder of ``--out-dir``, so a
stopped run goes on where it was; ``table.md`` and ``curve.png`` lie beside it.
A config that was changed meanwhile is learned anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from solvers import read_rows

from mmhiper.apis import load_editor
from mmhiper.engine.launch import train
from mmhiper.engine.together import batches_of, learn
from mmhiper.models.loading import BUNDLED, MINI_SD
from mmhiper.registry import DATASETS, MODELS
from mmhiper.utils.devices import best_device

sys.path.append(str(Path(__file__).parents[1] / 'mini_sd'))

from evaluate_hiper import edit, make_case, run_config, score

from judge import DEFAULT_PATH, Judge, describe, load_judge

CONFIGS = [Path(__file__).parents[2] / 'configs/hiper/dog.py']
FIGURES = ('edit_success', 'identity', 'both')
Row = dict[str, Any]


def learn_all(args: argparse.Namespace, config: Path, seed: int) -> Config:
    """Learn all individuals by a config, with snapshots on the way."""
    args.out_dir = args.results / f'seed{seed}'
    args.out_dir.mkdir(parents=True, exist_ok=True)
    args.config, args.mask = config, False
    length = args.iters or Config.fromfile(config).train_cfg.max_iters
    args.cfg_options = {
        'randomness.seed': seed,
        'default_hooks.checkpoint.interval': -(-length // args.snapshots),
    }
    cases = [make_case(i) for i in range(args.individuals)]
    cfg = run_config(cases, None, args)
    train(cfg)
    return cfg


def draw_points(args: argparse.Namespace, judge: Judge) -> list[Row]:
    """Learn and draw what is missing, a line for each snapshot."""
    path = args.results / 'points.jsonl'
    rows = read_rows(path)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    done = {(row['run'], row['seed'], row['iterations']) for row in rows}
    asked = set()
    cases = [make_case(i) for i in range(args.individuals)]
    for config in args.configs:
        for seed in args.seeds:
            cfg = learn_all(args, config, seed)
            run = Path(cfg.work_dir).name  # tells weights and settings apart
            asked.add((run, seed))
            draws = cfg.model.get('draws_per_step', 1)
            for file in Path(cfg.work_dir).glob('iter_*.pth'):
                iterations = int(file.stem.split('_')[1])
                if (run, seed, iterations) in done:
                    continue
                editor = load_editor(cfg, file)
                images = edit(
                    editor,
                    cases,
                    editor.strength,
                    num_inference_steps=args.steps,
                )
                row = dict(
                    config=config.stem,
                    run=run,
                    seed=seed,
                    iterations=iterations,
                    draws=iterations * draws,
                    **score(judge, cases, images),
                )
                with path.open('a') as lines:
                    lines.write(json.dumps(row) + '\n')
                rows.append(row)
    return [row for row in rows if (row['run'], row['seed']) in asked]


def seconds_per_step(args: argparse.Namespace, config: Path) -> float:
    """The median step of a run of one image, without previews."""
    cfg = Config.fromfile(config)
    cfg.train_cfg.max_iters = args.timed
    cfg.model.sd.update(pretrained=str(args.pretrained), without_cuda=None)
    editor = MODELS.build(cfg.model).to(best_device())
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    times: list[float] = []

    def clocked() -> Iterator[dict[str, Any]]:
        for batch in batches_of(dataset, cfg):
            times.append(time.perf_counter())
            yield batch

    learn(editor, clocked(), cfg)
    return float(np.median(np.diff(times)))


def points_of(rows: list[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds, a row for each point."""
    points = []
    for key in sorted({(row['config'], row['iterations']) for row in rows}):
        group = [
            row for row in rows if (row['config'], row['iterations']) == key
        ]
        point = dict(group[0], seeds=len(group))
        for name in FIGURES:
            values = [row[name] for row in group]
            point[name] = float(np.mean(values))
            point[f'{name}_std'] = float(np.std(values, ddof=len(group) > 1))
        points.append(point)
    return points


def table_of(points: list[Row], seconds: dict[str, float]) -> str:
    """The points as a table in Markdown."""
    head = ['config', 'iterations', 'draws', 'seconds', *FIGURES, 'seeds']
    lines = ['| ' + ' | '.join(head) + ' |', '| --- ' * len(head) + '|']
    for point in points:
        cells = [point['config'], point['iterations'], point['draws']]
        step = seconds.get(point['config'])
        cells.append(f'{step * point["iterations"]:.1f}' if step else '')
        cells += [
            f'{point[name]:.3f} +- {point[f"{name}_std"]:.3f}'
            for name in FIGURES
        ]
        lines.append(f'| {" | ".join(map(str, cells))} | {point["seeds"]} |')
    return '\n'.join(lines) + '\n'


def draw_curves(points: list[Row], seconds: dict[str, float]) -> Figure:
    """Draw `both` over draws, and over seconds where they are known."""
    scales = {'draws of an image': lambda point: point['draws']}
    if seconds:
        scales['seconds of a run of one image'] = lambda point: (
            seconds[point['config']] * point['iterations']
        )
    figure = Figure((4.8 * len(scales), 4), dpi=100, layout='constrained')
    panels = figure.subplots(1, len(scales), squeeze=False)[0]
    for axes, (label, scale) in zip(panels, scales.items(), strict=True):
        for config in dict.fromkeys(point['config'] for point in points):
            own = [point for point in points if point['config'] == config]
            axes.errorbar(
                [scale(point) for point in own],
                [point['both'] for point in own],
                [point['both_std'] for point in own],
                fmt='o-', ms=4, capsize=3, label=config,
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.set_title('success and identity')
        axes.grid(alpha=0.3)
    panels[0].legend()
    return figure


def main(words: list[str] | None = None) -> None:
    """Learn, draw, judge; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--configs', type=Path, nargs='+', default=CONFIGS)
    parser.add_argument('--pretrained', type=Path, default=BUNDLED[MINI_SD])
    parser.add_argument('--judge', type=Path, default=DEFAULT_PATH)
    parser.add_argument('--individuals', type=int, default=20)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--snapshots', type=int, default=4, help='of each run (%(default)s)'
    )
    parser.add_argument('--iters', type=int, help="the config's")
    parser.add_argument(
        '--steps', type=int, default=25, help='of DDIM (%(default)s)'
    )
    parser.add_argument(
        '--timed', type=int, default=40, help='iterations (%(default)s)'
    )
    parser.add_argument('--no-timing', action='store_true')
    parser.add_argument(
        '--out-dir',
        dest='results',
        type=Path,
        default=Path('work_dirs/benchmarks/time_to_quality'),
    )
    args = parser.parse_args(words)
    args.results /= f'{args.individuals}-individuals-{args.steps}-steps'
    args.results.mkdir(parents=True, exist_ok=True)
    judge = load_judge(args.judge)
    points = points_of(draw_points(args, judge))
    seconds: dict[str, float] = {}
    if not args.no_timing:
        for config in args.configs:
            seconds[config.stem] = seconds_per_step(args, config)
    table = table_of(points, seconds)
    (args.results / 'table.md').write_text(table)
    draw_curves(points, seconds).savefig(args.results / 'curve.png')
    print(table)
    print(describe(judge.accuracy))


if __name__ == '__main__':
    main()
