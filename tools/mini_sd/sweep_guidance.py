"""Measure the editors on the mini world over guidance, and choose the best.

    python tools/mini_sd/sweep_guidance.py hiper
    python tools/mini_sd/sweep_guidance.py style_diffusion

HiPer learns every source once and draws it under all settings: scales, each
with and without rescaling (arXiv 2305.08891) and an interval of noise levels
(arXiv 2404.07724). StyleDiffusion and its baselines invert every source at
each scale, which trains with it, and edit at the same one.

A setting is judged by ``both``: of HiPer the share of edits that succeed and
keep the identity; of the others the mean of SSIM where nothing should change,
0 for an edit that fails.

Each case is a line of ``cases.jsonl`` in a folder of ``--out-dir`` that is
named after weights, judge and settings of learning, so a stopped run goes on
where it was. ``table.md``, ``best.json`` and ``curve.png`` lie beside it, and
are drawn anew after each source.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
from matplotlib.figure import Figure

from mmhiper.models.guidance import Guidance
from mmhiper.models.loading import BUNDLED, MINI_SD
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.pixels import to_pil

from judge import DEFAULT_PATH, Judge, describe, load_judge

CONFIG = Path(__file__).parents[2] / 'configs/style_diffusion/dog.py'
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5)
# What decides a setting, besides the method.
SETTING = ('guidance_scale', 'guidance_rescale', 'guidance_interval')
FIGURES = {
    'hiper': ('edit_success', 'identity', 'both', 'reconstruction_psnr_db'),
    'style_diffusion': (
        'edit_success', 'kept_ssim', 'kept_psnr_db', 'both',
        'reconstruction_psnr_db',
    ),
}  # fmt: skip
Row = dict[str, Any]  # method, setting, individual, figures


def settings(args: argparse.Namespace) -> list[Guidance]:
    """All settings, those of one variant in a row; the plain ones first."""
    found: list[Guidance] = []
    interval = tuple(args.interval) if args.interval else None
    for rescale, within, scale in product(
        dict.fromkeys((0.0, args.rescale)),
        dict.fromkeys((None, interval)),
        args.scales,
    ):
        plain = not rescale and within is None
        if plain or scale > 1:  # without guidance there is nothing to tame
            found.append(Guidance(scale, rescale, within))
    return found


def variant_of(row: Row) -> str:
    """The method of a row, and what its guidance is tamed by."""
    words = [row['method']]
    if row.get('guidance_rescale'):
        words.append(f'rescale {row["guidance_rescale"]:g}')
    if row.get('guidance_interval'):
        low, high = row['guidance_interval']
        words.append(f'interval ({low:g}, {high:g})')
    return ', '.join(words)


# ----------------------------------------------------------------------- cases
class Cases:
    """The cases that are done, a line of a file each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            # the last line of a killed run may be a part of one
            whole = [line for line in lines if line.endswith('\n')]
            self.rows = [json.loads(line) for line in whole]
            path.write_text(''.join(whole))
        self.done = {self._key(row) for row in self.rows}

    @staticmethod
    def _key(row: Row) -> str:
        names = ('method', 'individual', *SETTING)
        return json.dumps([row.get(name) for name in names])

    def has(self, method: str, individual: int, guidance: Guidance) -> bool:
        """Whether a case is done."""
        row = dict(method=method, individual=individual, **guidance.plain())
        return self._key(row) in self.done

    def add(
        self,
        method: str,
        individual: int,
        guidance: Guidance,
        figures: dict[str, float],
    ) -> None:
        """Note a case."""
        row = dict(
            method=method,
            individual=individual,
            **guidance.plain(),
            **{name: round(value, 5) for name, value in figures.items()},
        )
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')
        self.rows.append(row)
        self.done.add(self._key(row))


def sweep_hiper(
    args: argparse.Namespace, judge: Judge, cases: Cases
) -> Iterator[None]:
    """Learn all sources at once, then draw one after the other."""
    from evaluate_hiper import (
        edit_one,
        learn,
        make_case,
        reconstruct_one,
        score,
    )

    args.config, args.cfg_options, args.mask = None, None, False
    sources = [make_case(i, args.name_place) for i in range(args.individuals)]
    editor = learn(sources, args.n_hiper, args)
    for index, case in enumerate(sources):
        for guidance in settings(args):
            if cases.has('HiPer', index, guidance):
                continue
            options = dict(num_inference_steps=args.steps, **guidance.plain())
            images = edit_one(editor, index, case, **options)
            figures = score(judge, sources, images, index)
            figures['reconstruction_psnr_db'] = reconstruct_one(
                editor, index, case, **options
            )[1]
            cases.add('HiPer', index, guidance, figures)
        yield


def sweep_style_diffusion(
    args: argparse.Namespace, judge: Judge, cases: Cases
) -> Iterator[None]:
    """Invert each source with every editor at every scale, and edit it."""
    sys.path.append(str(Path(__file__).parents[1]))
    import edit_cases
    from evaluate_style_diffusion import make_edits, measure, write_table

    from mmhiper.io.case_table import read_cases
    from mmhiper.utils import register_all_modules

    register_all_modules()
    edits = [e for i in range(args.individuals) for e in make_edits(i)]
    table = read_cases(write_table(edits, args.out_dir))
    per = len(edits) // args.individuals
    for index, (method, scale) in product(
        range(args.individuals), product(args.editors, args.scales)
    ):
        todo = [
            guidance
            for guidance in settings(args)
            if guidance.scale == scale
            and not cases.has(method, index, guidance)
        ]
        # which learns what guidance moves away from
        if not todo or (method == 'NullTextInversion' and scale <= 1):
            continue
        own = slice(index * per, (index + 1) * per)
        cfg = edit_cases.make_config(
            table[own][0], invert_options(args, method, scale)
        )
        # runs of one name and second would share their state
        cfg.experiment_name = f'{method}_{index}_{scale:g}'
        editor = edit_cases.invert(cfg)
        pixels = edit_cases.batch_of(cfg, editor)['inputs']
        coded = editor.sd.decode(editor.sd.encode_image(pixels)).clamp(-1, 1)
        for guidance in todo:
            images: dict[str, list[Any]] = dict(
                source=[to_pil(pixels[0])] * per,
                autoencoder=[to_pil(coded[0])] * per,
                inversion=[],
                edit=[],
            )
            for case in table[own]:
                drawn = editor.infer(
                    case.target, return_reconstruction=True,
                    show_progress=False, **case.options, **guidance.plain(),
                )  # fmt: skip
                images['inversion'] += drawn['reconstructions']
                images['edit'] += drawn['samples']
            found = measure(judge, edits[own], images)
            found['both'] = found['edit_success'] * found['kept_ssim']
            figures = {name: float(v.mean()) for name, v in found.items()}
            cases.add(method, index, guidance, figures)
        yield


def invert_options(
    args: argparse.Namespace, method: str, scale: float
) -> argparse.Namespace:
    """What ``edit_cases.py`` would be told, to invert at a scale."""
    pretrained = dict(pretrained=str(args.pretrained), without_cuda=None)
    options: dict[str, Any] = {
        f'model.sd.{key}': val for key, val in pretrained.items()
    }
    if method == 'StyleDiffusion':
        options |= {
            f'model.image_encoder.{key}': val
            for key, val in pretrained.items()
        }
    options['model.guidance_scale'] = scale
    return argparse.Namespace(
        out_dir=args.out_dir / f'guidance{scale:g}',
        config=CONFIG,
        editor=method,
        cfg_options=options,
        cfg_options_texts={name: str(each) for name, each in options.items()},
    )


# --------------------------------------------------------------------- results
def means(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    """One row for each setting: the means over all sources."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = json.dumps([row.get(name) for name in ('method', *SETTING)])
        groups.setdefault(key, []).append(row)
    result = []
    for group in groups.values():
        kept = ('method', *SETTING)
        mean = {name: group[0][name] for name in kept if name in group[0]}
        for name in names:
            mean[name] = float(np.mean([row[name] for row in group]))
        result.append(dict(mean, individuals=len(group)))
    return result


def best_of(rows: list[Row]) -> dict[str, Row]:
    """The best setting of each method by ``both``; of equals the first.

    Only settings that have drawn as many sources as any other are compared.
    """
    best: dict[str, Row] = {}
    most = max(row['individuals'] for row in rows)
    for row in rows:
        known = best.get(row['method'])
        if row['individuals'] == most and (
            known is None or row['both'] > known['both']
        ):
            best[row['method']] = row
    return best


def write_results(rows: list[Row], names: tuple[str, ...], out: Path) -> None:
    """Write the table, the best settings and the curves."""
    rows = means(rows, names)
    rows.sort(key=lambda row: (variant_of(row), row['guidance_scale']))
    head = ['editor', 'guidance', *names, 'sources']
    lines = ['| ' + ' | '.join(head) + ' |', '| --- ' * len(head) + '|']
    for row in rows:
        cells = [variant_of(row), f'{row["guidance_scale"]:g}']
        cells += [
            f'{row[name]:.2f}' if name.endswith('_db') else f'{row[name]:.3f}'
            for name in names
        ]
        lines.append(f'| {" | ".join(cells)} | {row["individuals"]} |')
    best = best_of(rows)
    (out / 'table.md').write_text('\n'.join(lines) + '\n')
    (out / 'best.json').write_text(json.dumps(best, indent=2) + '\n')
    with atomic_path(out / 'curve.png') as temporary:
        draw_curves(rows, names).savefig(temporary, format='png')


def draw_curves(rows: list[Row], names: tuple[str, ...]) -> Figure:
    """Draw each figure over guidance, a line for each variant."""
    figure = Figure((3.6 * len(names), 4.2), dpi=100, layout='constrained')
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for variant in dict.fromkeys(map(variant_of, rows)):
            points = sorted(
                (row['guidance_scale'], row[name])
                for row in rows
                if variant_of(row) == variant
            )
            axes.plot(*zip(*points, strict=True), 'o-', ms=4, label=variant)
        axes.set_title(name.replace('_', ' '))
        axes.set_xlabel('guidance scale')
        axes.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc='outside lower center',
        ncols=4,
    )
    return figure


# ------------------------------------------------------------------------ main
def fingerprint(args: argparse.Namespace, judge: Judge) -> str:
    """Names all that decides a case besides its setting."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(args.pretrained.rglob('*.safetensors')):
        digest.update(path.read_bytes())
    for tensor in judge.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    learned = [args.individuals]
    if args.editor == 'hiper':
        learned += [args.iters, args.n_hiper, args.name_place, args.steps]
    digest.update(json.dumps(learned).encode())
    return f'{args.editor}-{digest.hexdigest()}'


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('editor', choices=list(FIGURES))
    parser.add_argument('--pretrained', type=Path, default=BUNDLED[MINI_SD])
    parser.add_argument('--judge', type=Path, default=DEFAULT_PATH)
    parser.add_argument('--individuals', type=int, default=20)
    parser.add_argument(
        '--scales', type=float, nargs='+', default=list(SCALES), metavar='S'
    )
    parser.add_argument(
        '--rescale', type=float, default=0.7, help='0 leaves it out (0.7)'
    )
    parser.add_argument(
        '--interval', type=float, nargs='*', default=[0.28, 5.42],
        metavar='SIGMA', help='none leaves it out (0.28 5.42)',
    )  # fmt: skip
    hiper = parser.add_argument_group('HiPer')
    hiper.add_argument('--iters', type=int, help="the config's")
    hiper.add_argument('--n-hiper', type=int, default=5)
    hiper.add_argument('--steps', type=int, default=50, help='of DDIM')
    hiper.add_argument(
        '--name-place',
        action='store_true',
        help='let all texts say where the animal is',
    )
    others = parser.add_argument_group('StyleDiffusion and its baselines')
    others.add_argument(
        '--editors',
        nargs='+',
        default=[
            'DDIMInversion',
            'NegativePromptInversion',
            'DirectInversion',
            'StyleDiffusion',
            'NullTextInversion',
        ],
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/mini_sd/guidance')
    )
    return parser.parse_args(words)


def run(args: argparse.Namespace, judge: Judge) -> Path:
    """Draw what is missing, and return the folder of the results."""
    settings(args)  # a mistake should not cost a training
    args.out_dir = args.out_dir / fingerprint(args, judge)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    cases = Cases(args.out_dir / 'cases.jsonl')
    sweeps = dict(hiper=sweep_hiper, style_diffusion=sweep_style_diffusion)
    names = FIGURES[args.editor]
    for _ in sweeps[args.editor](args, judge, cases):
        write_results(cases.rows, names, args.out_dir)
    write_results(cases.rows, names, args.out_dir)
    return args.out_dir


def main() -> None:
    """Sweep, and print the table and the best settings."""
    args = parse_args()
    judge = load_judge(args.judge)
    out_dir = run(args, judge)
    print((out_dir / 'table.md').read_text())
    print(describe(judge.accuracy))
    print(f'Best by `both`: {(out_dir / "best.json").read_text()}')
    print(f'Curves in {out_dir / "curve.png"}')


if __name__ == '__main__':
    main()
