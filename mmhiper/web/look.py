"""How the page looks: lines of text, and its style."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

CSS = """
.bar {height: 10px; border-radius: 5px; overflow: hidden;
  background: var(--border-color-primary)}
.bar div {height: 100%; background: var(--color-accent)}
.run p, .line p {margin: 6px 0; overflow-wrap: anywhere}
.run p:first-child {font-weight: 600}
.pictures .grid-wrap {min-height: 0 !important; max-height: none !important}
.pictures .grid-container {overflow-x: hidden;
  grid-template-columns: repeat(4, minmax(0, 1fr)) !important}
@media (max-width: 640px) {.pictures .grid-container {
  grid-template-columns: repeat(2, minmax(0, 1fr)) !important}}
footer {display: none !important}
"""


def as_html(lines: Iterable[str], share: float | None = None) -> str:
    """Lines of text as paragraphs, in which nothing is markup.

    Args:
        lines: The texts.
        share: For a bar below the first one, in [0, 1].
    """
    parts = [f'<p>{escape(line)}</p>' for line in lines]
    if share is not None:
        done = f'<div style="width:{share:.0%}"></div>'
        parts.insert(1, f'<div class="bar" role="progressbar">{done}</div>')
    return ''.join(parts)
