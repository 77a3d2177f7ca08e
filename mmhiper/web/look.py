"""How the page looks: its progress, its curve, its colours."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from mmhiper.studio.runs import Progress, Run
from mmhiper.utils.units import plain_time

CSS = """
.bar {height: 10px; border-radius: 5px; overflow: hidden;
  background: var(--border-color-primary)}
.bar div {height: 100%; background: var(--color-accent)}
.run p {margin: 6px 0; overflow-wrap: anywhere}
.run svg {width: 100%; max-width: 640px; height: auto; display: block}
.line {opacity: .8; overflow-wrap: anywhere}
.pictures .grid-container {overflow-x: hidden;
  grid-template-columns: repeat(4, minmax(0, 1fr)) !important}
@media (max-width: 640px) {.pictures .grid-container {
  grid-template-columns: repeat(2, minmax(0, 1fr)) !important}}
footer {display: none !important}
"""
_WIDTH, _HEIGHT, _EDGE = 640, 160, 34


def show_run(run: Run, state: str, progress: Progress) -> str:
    """A bar, words and the curve, as HTML; every text in it is escaped."""
    share = progress.done / progress.total if progress.total else 0.0
    of = f' of {progress.total}' if progress.total else ''
    words = f'<b>{escape(run.name)}</b>: {escape(state)}'
    words += f', {progress.done}{of} steps' if progress.done else ''
    if state == 'learning' and progress.left is not None:
        words += f', about {plain_time(progress.left)} left'
    asked, lines = run.asked(), [f'<p>{words}</p>']
    bar = f'<div style="width:{100 * min(1.0, share):.0f}%"></div>'
    lines.append(f'<div class="bar" role="progressbar">{bar}</div>')
    for text in (
        run.said('Learned: ') or run.said('Nothing measurable'),
        asked.get('remark', ''),
    ):
        lines.append(
            f'<p class="line">{escape(str(text))}</p>' if text else ''
        )
    return f'<div class="run">{"".join(lines)}{_curve(progress.curve)}</div>'


def _curve(points: Mapping[int, float]) -> str:
    """The loss on fixed noise over the iterations, in SVG."""
    if len(points) < 2:
        return ''
    last, low, high = max(points), min(points.values()), max(points.values())
    room = (high - low) or 1.0
    places = [
        (
            _EDGE + (_WIDTH - _EDGE - 8) * step / (last or 1),
            8 + (_HEIGHT - 32) * (high - loss) / room,
        )
        for step, loss in sorted(points.items())
    ]
    way = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
    dots = ''.join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places
    )
    text = 'fill="currentColor" font-size="11"'
    return (
        f'<p class="line">Loss on noise that stays the same</p>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f'<g fill="var(--color-accent)" stroke="var(--color-accent)">'
        f'<polyline fill="none" stroke-width="2" points="{way}"/>{dots}</g>'
        f'<text x="0" y="14" {text}>{high:.3f}</text>'
        f'<text x="0" y="{_HEIGHT - 22}" {text}>{low:.3f}</text>'
        f'<text x="{_EDGE}" y="{_HEIGHT - 4}" {text}>0</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 4}" text-anchor="end" {text}>'
        f'{last}</text></svg>'
    )


def show_line(line: list[Run], state: str) -> str:
    """Who is at work and who waits."""
    if not line:
        return '<p class="line">Nothing is being learned.</p>'
    words = f'<b>{escape(line[0].name)}</b> is {escape(state)}'
    waiting = ', '.join(escape(run.name) for run in line[1:])
    return f'<p class="line">{words}; waiting: {waiting or "nobody"}</p>'
