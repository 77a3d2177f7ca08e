"""Draws ``method.svg``: where a learned tensor can enter.

python docs/draw_method.py --out-dir DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

FROZEN, PLAIN = '#e4e9f0', '#c3cddb'
COLOURS = {'A': '#d9822b', 'B': '#2b8a5f', 'C': '#8a4fbf'}
CELLS = 14  # that stand for the 77 positions
WIDTH = 0.13  # of a cell


def box(ax: Axes, x: float, y: float, width: float, text: str) -> None:
    """A frozen part, centred on (x, y)."""
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.34),
        width,
        0.68,
        boxstyle='round,pad=0,rounding_size=0.08',
        facecolor=FROZEN,
        edgecolor='#5b6b80',
    )
    ax.add_patch(shape)
    ax.text(x, y, text, ha='center', va='center', fontsize=10)


def arrow(
    ax: Axes, *points: tuple[float, float], colour: str = '#333'
) -> None:
    """A line through some points, with a head at the last."""
    xs, ys = zip(*points[:-1], strict=True)
    ax.plot(xs, ys, color=colour, linewidth=1.3, solid_capstyle='butt')
    ax.annotate(
        '',
        points[-1],
        points[-2],
        arrowprops=dict(
            arrowstyle='-|>', color=colour, shrinkA=0, shrinkB=0, lw=1.3
        ),
    )


def strip(
    ax: Axes, x: float, y: float, name: str = '', learned: Sequence[int] = ()
) -> None:
    """A row of positions that begins at x; some are learned."""
    for i in range(CELLS):
        cell = Rectangle(
            (x + i * WIDTH, y - 0.13),
            WIDTH,
            0.26,
            facecolor=COLOURS[name] if i in learned else PLAIN,
            edgecolor='white',
            linewidth=0.8,
        )
        ax.add_patch(cell)


def entry(ax: Axes, x: float, y: float, name: str, *lines: str) -> None:
    """The mark of an entry point, and below it what enters there."""
    ax.text(
        x,
        y,
        name,
        color='white',
        weight='bold',
        ha='center',
        va='center',
        fontsize=11,
        bbox=dict(
            boxstyle='circle', facecolor=COLOURS[name], edgecolor='none'
        ),
    )
    title, *rest = lines
    ax.text(x, -2.05, title, ha='center', weight='bold', color=COLOURS[name])
    ax.text(x, -2.2, '\n'.join(rest), ha='center', va='top', fontsize=9)


def draw() -> Figure:
    """The whole figure."""
    figure = Figure(figsize=(11, 3.5))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, 11)
    ax.set_ylim(-2.72, 0.78)
    ax.axis('off')

    ax.text(0.7, 0, '"a sitting\n<toy> dog"', ha='center', va='center')
    box(ax, 2.25, 0, 1.3, 'tokenizer,\ntoken table')
    box(ax, 4.75, 0, 1.3, 'CLIP\ntext encoder')
    box(ax, 9.75, 0, 1.9, "U-Net's\ncross-attention")
    arrow(ax, (1.22, 0), (1.6, 0))
    arrow(ax, (2.9, 0), (4.1, 0))
    arrow(ax, (5.4, 0), (6.15, 0))
    ax.text(7.07, 0.22, 'c (77, D)', ha='center', fontsize=9)
    strip(ax, 6.15, 0)
    end = 6.15 + CELLS * WIDTH
    arrow(ax, (end, 0), (8.25, 0), (8.25, 0.2), (8.8, 0.2))
    arrow(ax, (8.25, 0), (8.25, -0.2), (8.8, -0.2))
    ax.text(8.38, 0.3, 'K', ha='center', fontsize=9)
    ax.text(8.38, -0.43, 'V', ha='center', fontsize=9)

    # what is learned, as positions, and where it goes in
    ways = {
        'A': [(3.5, -1.4), (3.5, -0.06)],
        'B': [(7.07, -1.4), (7.07, -0.19)],
        'C': [(9.5, -1.4), (9.5, -0.8), (8.55, -0.8), (8.55, -0.26)],
    }
    learned = {'A': [4], 'B': range(CELLS - 3, CELLS), 'C': range(CELLS)}
    for name, way in ways.items():
        arrow(ax, *way, colour=COLOURS[name])
        strip(ax, way[0][0] - CELLS * WIDTH / 2, -1.55, name, learned[name])
    entry(
        ax, 3.5, -0.8, 'A', 'Textual Inversion',
        'new rows of the token table,', 'before the text encoder: (n, D)',
    )  # fmt: skip
    entry(
        ax, 7.07, -0.8, 'B', 'HiPer',
        'the last N positions,', 'after the text encoder: (N, D)',
    )  # fmt: skip
    entry(
        ax, 9.5, -0.8, 'C', 'StyleDiffusion',
        'scale and shift of the input of V,',
        'from the picture, per timestep: 2 (77, D)',
    )  # fmt: skip
    ax.text(2.25, 0.55, 'frozen', ha='center', fontsize=9, color='#5b6b80')
    ax.text(4.75, 0.55, 'frozen', ha='center', fontsize=9, color='#5b6b80')
    ax.text(9.75, 0.55, 'frozen', ha='center', fontsize=9, color='#5b6b80')
    ax.text(
        0.15, -1.55, 'the 77 positions,\nin colour what is learned',
        va='center', fontsize=9, color='#5b6b80',
    )  # fmt: skip
    return figure


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--out-dir', type=Path, required=True)
    path = parser.parse_args().out_dir / 'method.svg'
    # the same bytes at every run
    matplotlib.rcParams['svg.hashsalt'] = 'mmhiper'
    draw().savefig(path, metadata={'Date': None}, facecolor='white')


if __name__ == '__main__':
    main()
