"""What a bench leaves: lines, tables with intervals, a page of pictures."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mmhiper.utils.atomic import atomic_path

LINES, TABLE, NUMBERS, PAGE = (
    'cases.jsonl',
    'table.md',
    'table.csv',
    'index.html',
)
ALL = 'all'  # sorts of edits together
_DRAWS, _SEED = 2000, 0  # of the bootstrap
_STYLE = (
    'body{font:14px sans-serif;margin:2em}figure{display:inline-block;'
    'width:180px;margin:4px;vertical-align:top}img{width:100%}'
    '.error{color:#a00}'
)


@dataclass(frozen=True)
class Scale:
    """How papers print a number.

    Attributes:
        title: With what it is multiplied by.
        factor: That.
        digits: Behind the point.
        up: Whether more is better.
    """

    title: str
    factor: float = 1.0
    digits: int = 2
    up: bool = False


def _scales() -> dict[str, Scale]:
    """All that are known, in the order of the tables."""
    views = {'background_': 'background ', '': '', 'goal_': 'goal '}
    scales = {'structure': Scale('structure x1e3', 1e3)}
    for view, title in views.items():
        scales |= {
            f'{view}psnr': Scale(f'{title}PSNR', up=True),
            f'{view}lpips': Scale(f'{title}LPIPS x1e3', 1e3),
            f'{view}mse': Scale(f'{title}MSE x1e4', 1e4),
            f'{view}ssim': Scale(f'{title}SSIM x1e2', 1e2, up=True),
        }
        if view:
            scales[f'{view}structure'] = Scale(f'{title}structure x1e3', 1e3)
    scales['ns_lpips'] = Scale('NS-LPIPS x1e3', 1e3)
    scales['clip_whole'] = Scale('CLIP whole', up=True)
    scales['clip_edited'] = Scale('CLIP edited', up=True)
    scales['clip_direction'] = Scale('CLIP direction', digits=3, up=True)
    for kind in ('clip', 'dino', 'imagenet', 'judge'):
        for name in ('success', 'identity', 'retrieval', 'background', 'goal'):
            scales[f'{name}_{kind}'] = Scale(
                f'{name} ({kind})', digits=3, up=True
            )
    return scales


SCALES = _scales()


def scale_of(name: str) -> Scale:
    """How a number is printed.

    Args:
        name: Of a metric; of one that is not known as it is.
    """
    return SCALES.get(name, Scale(name.replace('_', ' '), 1.0, 3, up=True))


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over cases, as papers print it.

    Attributes:
        count: Of the cases that have it.
        value: The mean.
        low: Lower end of its 95 % interval, by bootstrap over cases.
        high: Upper end.
    """

    count: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], factor: float = 1.0) -> Mean:
        """Takes the mean of some values.

        Args:
            values: At least one.
            factor: On all of them.
        """
        numbers = factor * np.asarray(values, dtype=float)
        # a generator of its own: the same values, the same interval
        rng = np.random.default_rng(_SEED)
        picks = rng.integers(len(numbers), size=(_DRAWS, len(numbers)))
        low, high = np.quantile(numbers[picks].mean(1), (0.025, 0.975))
        return cls(
            len(numbers), float(numbers.mean()), float(low), float(high)
        )

    def text(self, digits: int) -> str:
        """The mean with its interval."""
        value, low, high = (
            f'{each:.{digits}f}' for each in (self.value, self.low, self.high)
        )
        return f'{value} [{low}, {high}]'


def means_of(
    lines: Iterable[Mapping[str, Any]],
) -> dict[str, dict[str, dict[str, Mean]]]:
    """The means of all metrics.

    Args:
        lines: Of cases.

    Returns:
        By sort of edit ('all' first), method and metric.
    """
    values: dict[str, dict[str, dict[str, list[float]]]] = {ALL: {}}
    lines = list(lines)
    for kind in sorted({line['kind'] for line in lines}):
        values[kind] = {}
    for line in lines:
        for kind in (ALL, line['kind']):
            methods = values[kind].setdefault(line['method'], {})
            for name, value in line['metrics'].items():
                methods.setdefault(name, []).append(value)
    if len(values) == 2:  # one sort is all
        del values[ALL]
    return {
        kind: {
            method: {
                name: Mean.of(metrics[name], scale_of(name).factor)
                for name in _ordered(metrics)
            }
            for method, metrics in methods.items()
        }
        for kind, methods in values.items()
    }


def _ordered(names: Iterable[str]) -> list[str]:
    """Metrics as the tables have them, unknown ones last."""
    order = {name: place for place, name in enumerate(SCALES)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def write_report(
    out_dir: Path,
    lines: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str],
    count: int,
) -> None:
    """Writes what there is, each file in one step.

    Args:
        out_dir: The folder.
        lines: Of the cases that are measured.
        failed: Why others failed, by method and case.
        count: Cases of the bench.
    """
    text = ''.join(
        json.dumps(line, ensure_ascii=False) + '\n' for line in lines
    )
    _write(out_dir / LINES, text)
    means = means_of(lines)
    _write(out_dir / TABLE, table_of(lines, means, failed, count))
    _write(out_dir / NUMBERS, _numbers(lines, means))
    _write(out_dir / PAGE, _page(lines, failed))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode('utf-8', 'backslashreplace'))


def encoders_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Whose features each metric is of; not those that are formulas."""
    found: dict[str, set[str]] = {}
    for line in lines:
        for name, whose in line['encoders'].items():
            found.setdefault(name, set()).add(whose)
    return {
        name: ' and '.join(sorted(found[name]))
        for name in _ordered(found)
        if any(found[name])
    }


def table_of(
    lines: Sequence[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, Mapping[str, Mean]]],
    failed: Mapping[str, str],
    count: int,
) -> str:
    """The tables, in Markdown.

    Args:
        lines: Of the cases that are measured.
        means: See :func:`means_of`.
        failed: Why others failed.
        count: Cases of the bench.
    """
    parts = [
        'Means over cases, with 95 % intervals (bootstrap over cases). An '
        'arrow says which way is better.\n'
    ]
    for kind, methods in means.items():
        parts.append(f'## {kind}\n')
        parts.append(_table(lines, kind, methods))
    parts.append(_notes(lines, failed, count))
    return '\n'.join(parts)


def _table(
    lines: Sequence[Mapping[str, Any]],
    kind: str,
    methods: Mapping[str, Mapping[str, Mean]],
) -> str:
    """The table of one sort of edits: a measure a row."""
    encoders = encoders_of(lines)
    counts = [
        sum(
            line['method'] == method and kind in (ALL, line['kind'])
            for line in lines
        )
        for method in methods
    ]
    rows = [
        ['measure', 'in features of', *methods],
        ['---'] * (2 + len(methods)),
        ['cases', '', *map(str, counts)],
    ]
    for name in _ordered(
        {name for found in methods.values() for name in found}
    ):
        scale = scale_of(name)
        cells = [
            found[name].text(scale.digits) if name in found else ''
            for found in methods.values()
        ]
        title = f'{scale.title} {"↑" if scale.up else "↓"}'
        rows.append([title, encoders.get(name, ''), *cells])
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def _notes(
    lines: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str],
    count: int,
) -> str:
    """What must be known of the numbers."""
    notes = []
    full = {line['case'] for line in lines if line.get('full_mask')}
    if full:
        notes.append(
            f'Background: {len(full)} of {count} cases are left out of its '
            'averages, since their mask is the whole picture.'
        )
    among = sorted({line['among'] for line in lines if line.get('among')})
    if among:
        counts = ' to '.join(map(str, sorted({among[0], among[-1]})))
        notes.append(f'Retrieval: among {counts} subjects.')
    noted = {line['case']: line['note'] for line in lines if line.get('note')}
    notes += [f'{case}: {note}.' for case, note in noted.items()]
    notes += [f'Failed: {name}: {why}' for name, why in failed.items()]
    return ''.join(f'- {note}\n' for note in notes)


def _numbers(
    lines: Iterable[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, Mapping[str, Mean]]],
) -> str:
    """The same for programs, a number a row."""
    encoders = encoders_of(lines)
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(
        [
            *('kind', 'method', 'metric', 'printed', 'encoder'),
            *('cases', 'mean', 'low', 'high'),
        ]
    )
    for kind, methods in means.items():
        for method, found in methods.items():
            for name, mean in found.items():
                table.writerow(
                    [
                        *(kind, method, name, scale_of(name).title),
                        encoders.get(name, ''),
                        *(mean.count, mean.value, mean.low, mean.high),
                    ]
                )
    return file.getvalue()


def _page(
    lines: Iterable[Mapping[str, Any]], failed: Mapping[str, str]
) -> str:
    """All pictures; they are loaded as they come into view."""
    parts = [
        '<!doctype html><meta charset="utf-8"><title>mmhiper bench</title>',
        f'<style>{_STYLE}</style>',
    ]
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        cases.setdefault(line['case'], []).append(line)
    for name, found in cases.items():
        first = found[0]
        words = f'{first["source"]} → {first["target"]} ({first["kind"]})'
        parts.append(f'<h3>{html.escape(name)}</h3>')
        parts.append(f'<p>{html.escape(words)}</p>')
        parts.append(_figure(f'sources/{name}.png', 'source'))
        if any(key.startswith('goal_') for key in first['metrics']):
            parts.append(_figure(f'goals/{name}.png', 'goal'))
        for line in found:
            path = f'{line["method"]}/{name}/edit.png'
            parts.append(_figure(path, line['method']))
    for name, why in failed.items():
        words = html.escape(f'{name}: {why}')
        parts.append(f'<p class="error">{words}</p>')
    return '\n'.join(parts) + '\n'


def _figure(path: str, caption: str) -> str:
    """A picture with its caption."""
    link, text = html.escape(quote(path)), html.escape(caption)
    return (
        f'<figure><a href="{link}"><img loading="lazy" src="{link}" '
        f'alt="{text}"></a><figcaption>{text}</figcaption></figure>'
    )
