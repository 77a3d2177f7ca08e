"""Solvers and how many steps they need, by the judge of the mini world.

    python tools/benchmarks/solvers.py

HiPer learns 20 individuals once (1200 iterations; a stopped run goes on where
it was) and draws their edits with each solver and number of steps. A line of
the table is one of them: the share of edits that succeed, that keep the
identity, and both, with the standard error over individuals; the PSNR of the
reconstruction; and how far the pictures are from those of the same solver at
its most steps, in dB. Passes are those through the U-Net for one picture, both
halves of guidance. What is compared is quality by passes: no time is taken, so
the machine need not be idle.

Each case is a line of ``cases.jsonl`` in a folder of ``--out-dir``;
``table.md`` lies beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
from PIL import Image

from mmhiper.models.loading import BUNDLED, MINI_SD

sys.path.append(str(Path(__file__).parents[1] / 'mini_sd'))

from evaluate_hiper import edit_one, learn, make_case, reconstruct_one, score

from judge import DEFAULT_PATH, Judge, describe, load_judge

SOLVERS = {
    'DDIM': 'DDIMScheduler',
    'DPM-Solver++ 2M': 'DPMSolverMultistepScheduler',
    'UniPC': 'UniPCMultistepScheduler',
}
STEPS = (5, 8, 10, 15, 20, 30, 50)
FIGURES = ('edit_success', 'identity', 'both')
Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The cases that are done; the last line of a killed run may be cut."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


def decibels(images: list[Image.Image], others: list[Image.Image]) -> float:
    """The mean PSNR between two lists of pictures."""
    found = []
    for one, other in zip(images, others, strict=True):
        pair = [np.asarray(each, dtype=float) for each in (one, other)]
        error = float(np.square(pair[0] - pair[1]).mean())
        found.append(10 * np.log10(255**2 / max(error, 1e-3)))
    return float(np.mean(found))


def draw_all(args: argparse.Namespace, judge: Judge) -> list[Row]:
    """Draw what is missing, a line each."""
    path = args.out_dir / 'cases.jsonl'
    rows = read_rows(path)
    done = {(row['solver'], row['steps'], row['individual']) for row in rows}
    args.config = args.cfg_options = None
    args.mask = False
    cases = [make_case(i, True) for i in range(args.individuals)]
    editor = learn(cases, None, args)
    most = max(args.steps)
    with path.open('w') as file:
        file.writelines(json.dumps(row) + '\n' for row in rows)
        for index, solver in product(range(args.individuals), SOLVERS):
            missing = [
                steps
                for steps in args.steps
                if (solver, steps, index) not in done
            ]
            best: list[Image.Image] = []
            # the most steps first: the others are compared with it
            for steps in sorted({*missing, most}, reverse=True):
                if not missing:
                    continue
                options = dict(
                    num_inference_steps=steps, scheduler=SOLVERS[solver]
                )
                images = edit_one(editor, index, cases[index], **options)
                best = best or images
                if steps not in missing:
                    continue
                rebuilt = reconstruct_one(
                    editor, index, cases[index], **options
                )[1]
                row = dict(
                    solver=solver, steps=steps, individual=index,
                    **score(judge, cases, images, index),
                    reconstruction_db=rebuilt,
                    to_most_steps_db=decibels(images, best),
                )  # fmt: skip
                file.write(json.dumps(row) + '\n')
                file.flush()
                rows.append(row)
    return rows


def table_of(rows: list[Row]) -> str:
    """Means over individuals, with the standard error of the shares."""
    head = ['solver', 'steps', 'passes', *FIGURES, 'reconstruction', 'to most']
    lines = ['| ' + ' | '.join(head) + ' |', '| --- ' * len(head) + '|']
    for key in dict.fromkeys((row['solver'], row['steps']) for row in rows):
        group = [row for row in rows if (row['solver'], row['steps']) == key]
        cells = [key[0], str(key[1]), str(2 * key[1])]
        for name in FIGURES:
            values = np.array([row[name] for row in group])
            error = values.std(ddof=min(1, len(values) - 1))
            cells.append(
                f'{values.mean():.3f} +- {error / len(values) ** 0.5:.3f}'
            )
        for name in ('reconstruction_db', 'to_most_steps_db'):
            cells.append(f'{np.mean([row[name] for row in group]):.2f} dB')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main(words: list[str] | None = None) -> None:
    """Draw, judge, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pretrained', type=Path, default=BUNDLED[MINI_SD])
    parser.add_argument('--judge', type=Path, default=DEFAULT_PATH)
    parser.add_argument('--individuals', type=int, default=20)
    parser.add_argument('--iters', type=int, help="the config's (1200)")
    parser.add_argument('--steps', type=int, nargs='+', default=[*STEPS])
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/benchmarks/solvers')
    )
    args = parser.parse_args(words)
    name = f'{args.pretrained.name}-{args.individuals}-{args.iters or "all"}'
    args.out_dir = args.out_dir / name
    args.out_dir.mkdir(parents=True, exist_ok=True)
    judge = load_judge(args.judge)
    table = table_of(draw_all(args, judge))
    (args.out_dir / 'table.md').write_text(table)
    print(table)
    print(describe(judge.accuracy))


if __name__ == '__main__':
    main()
