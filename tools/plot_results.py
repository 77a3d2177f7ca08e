"""Draw what benches have found: curves, and the best to the worst of cases.

    python tools/plot_results.py out_n1 out_n5 out_n10 --out-dir plots

Each folder is one of ``mmhiper bench``. ``curves.png`` has a point for each
method in each of them, identity against text by default, joined in the order
of the folders, with 95 % intervals; ``METHOD.png`` shows the best, the median
and the worst case of the last folder, chosen by its score alone; and
``table.md`` the means of all folders one below the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

from mmhiper.bench.report import LINES, Mean, means_of, scale_of, table_of
from mmhiper.cli.errors import user_errors
from mmhiper.utils.atomic import atomic_path, check_writable
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.picture_files import open_picture
from mmhiper.utils.reading import JSON_DAMAGE, check_file, reading
from mmhiper.utils.sheet import draw_sheet, save_sheet

# What a curve shows and cases are chosen by, the first that there is.
TEXT = ('success_judge', 'clip_whole')
IDENTITY = ('identity_imagenet', 'identity_dino', 'identity_clip')
SCORE = ('goal_imagenet', 'goal_clip', 'clip_whole')

Lines = list[dict[str, Any]]


def read_lines(folder: Path) -> Lines:
    """Reads the lines of a bench.

    Raises:
        FileNotFoundError: If it has none.
        ValueError: If they are none of a bench.
    """
    path = check_file(folder / LINES, 'the lines of a bench')
    with reading(path, 'is damaged', 'Run the bench again.', JSON_DAMAGE):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = ('method', 'case', 'kind', 'metrics', 'encoders')
    if not lines or not all(
        isinstance(line, dict) and all(name in line for name in names)
        for line in lines
    ):
        raise FileError(f'{str(path)!r} has no lines of a bench.')
    return lines


def choose(asked: str | None, usual: Sequence[str], lines: Lines) -> str:
    """The metric that is asked for, or the first usual one there is.

    Raises:
        ValueError: If there is none.
    """
    known = {name for line in lines for name in line['metrics']}
    for name in (asked,) if asked else usual:
        if name in known:
            return name
    raise UserError(
        f'There is no metric {asked or " or ".join(usual)!r} among '
        f'{", ".join(sorted(known))}.'
    )


def draw_curves(
    found: Mapping[str, Lines], x: str, y: str, path: Path
) -> None:
    """Draws a curve for each method over some benches.

    Args:
        found: Lines by the name of the bench, in order.
        x: A metric.
        y: Another one.
        path: Of the picture.
    """
    from matplotlib.figure import Figure

    points: dict[str, list[tuple[str, Mean, Mean]]] = {}
    for name, lines in found.items():
        for method, means in next(iter(means_of(lines).values())).items():
            if x in means and y in means:
                points.setdefault(method, []).append(
                    (name, means[x], means[y])
                )
    # no pyplot: its state is global, and it asks for a display
    figure = Figure(figsize=(8, 6))
    axes = figure.subplots()
    for method, each in points.items():
        pair = [list(means) for means in list(zip(*each, strict=True))[1:]]
        xs, ys = ([mean.value for mean in means] for means in pair)
        axes.errorbar(
            xs,
            ys,
            xerr=_ends(pair[0]),
            yerr=_ends(pair[1]),
            marker='o',
            capsize=2,
            label=method,
        )
        if len(found) > 1:
            for (name, *_), px, py in zip(each, xs, ys, strict=True):
                axes.annotate(name, (px, py), fontsize='small')
    axes.set_xlabel(scale_of(x).title)
    axes.set_ylabel(scale_of(y).title)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png', dpi=120, bbox_inches='tight')


def _ends(means: Sequence[Mean]) -> list[list[float]]:
    """How far intervals reach down and up."""
    return [
        [mean.value - mean.low for mean in means],
        [mean.high - mean.value for mean in means],
    ]


def extremes(lines: Lines, score: str) -> dict[str, dict[str, Any]]:
    """The best, the median and the worst case, by a score alone.

    Args:
        lines: Of one method, at least one with the score.
        score: A metric.
    """
    up = scale_of(score).up
    ranked = sorted(
        (line for line in lines if score in line['metrics']),
        key=lambda line: (line['metrics'][score], line['case']),
        reverse=up,
    )
    return dict(
        best=ranked[0],
        median=ranked[(len(ranked) - 1) // 2],
        worst=ranked[-1],
    )


def draw_extremes(folder: Path, lines: Lines, score: str, path: Path) -> None:
    """Draws these three: source, right answer where there is one, edit."""
    rows = []
    for rank, line in extremes(lines, score).items():
        scale = scale_of(score)
        value = line['metrics'][score] * scale.factor
        files = [
            (line['source'], folder / 'sources' / f'{line["case"]}.png'),
            ('the right answer', folder / 'goals' / f'{line["case"]}.png'),
            (
                f'{rank}: {line["target"]} ({scale.title} '
                f'{value:.{scale.digits}f})',
                folder / line['method'] / line['case'] / 'edit.png',
            ),
        ]
        row = []
        for caption, file in files:
            if file.is_file():
                with open_picture(file) as picture:
                    row.append((caption, picture.convert('RGB')))
        rows.append(row)
    save_sheet(draw_sheet(rows), path)


def main() -> None:
    """Draw everything into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folders', nargs='+', type=Path)
    parser.add_argument('--out-dir', type=Path, required=True)
    parser.add_argument('--x', help=f'({" or ".join(TEXT)})')
    parser.add_argument('--y', help=f'({" or ".join(IDENTITY)})')
    parser.add_argument(
        '--score', help=f'that cases are chosen by ({" or ".join(SCORE)})'
    )
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    args = parser.parse_args()
    check_writable(args.out_dir)
    found = {folder.name: read_lines(folder) for folder in args.folders}
    lines = found[args.folders[-1].name]
    x, y = choose(args.x, TEXT, lines), choose(args.y, IDENTITY, lines)
    score = choose(args.score, SCORE, lines)
    draw_curves(found, x, y, args.out_dir / 'curves.png')
    for method in dict.fromkeys(line['method'] for line in lines):
        own = [line for line in lines if line['method'] == method]
        if any(score in line['metrics'] for line in own):
            path = args.out_dir / f'{method}.png'
            draw_extremes(args.folders[-1], own, score, path)
    tables = []
    for name, each in found.items():
        count = len({line['case'] for line in each})
        table = table_of(each, means_of(each), {}, count)
        tables.append(f'# {name}\n\n{table}')
    with atomic_path(args.out_dir / 'table.md') as temporary:
        temporary.write_text('\n'.join(tables), encoding='utf-8')
    print(f'Curves, cases and table.md in {args.out_dir}')


if __name__ == '__main__':
    with user_errors('--debug' in sys.argv):
        main()
