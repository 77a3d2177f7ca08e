"""What many photos leave together: one embedding file, one page, one list."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch

from mmhiper.io import write_export
from mmhiper.io.export import read_export
from mmhiper.io.file_content import read_safetensors
from mmhiper.io.modelspec import kept
from mmhiper.io.record import MOST_CHARACTERS, to_json
from mmhiper.utils.arguments import check_plain
from mmhiper.utils.atomic import atomic_path, remove_leftovers

if TYPE_CHECKING:
    from mmhiper.many import Photo

# Of each photo, in its folder.
EMBEDDING = 'embedding.safetensors'
SHEET = 'sheet.png'
DONE = 'case.json'  # what the results were made from; written last
ERROR = 'error.txt'
# Of all.
EMBEDDINGS = 'embeddings.safetensors'
PAGE = 'index.html'
LIST = 'results.json'
OF_ALL = (EMBEDDINGS, PAGE, LIST)
_STYLE = (
    'body{font:16px sans-serif;margin:2em}img{max-width:100%}'
    '.error{color:#a00}'
)


def collect(
    photos: Sequence[Photo],
    out_dir: Path,
    is_done: Callable[[Photo], bool],
) -> dict[str, str]:
    """Writes what there is of all photos so far.

    Processes that have a share each may do so at the same time: the last one
    to write has seen all.

    Args:
        photos: All, in the order of the rows.
        out_dir: The folder with those of the photos.
        is_done: Whether the results of a photo are complete.

    Returns:
        Why those that have failed did, by their names.
    """
    remove_leftovers(out_dir)
    while True:
        seen = _finished(photos, out_dir)
        done = [photo for photo in photos if is_done(photo)]
        failed = {
            photo.name: _first_line(out_dir / photo.name / ERROR)
            for photo in photos
            if photo not in done and (out_dir / photo.name / ERROR).is_file()
        }
        _write_embeddings(done, out_dir)
        rows = [_row(photo, done, failed) for photo in photos]
        _write(out_dir / LIST, json.dumps(rows, indent=1, ensure_ascii=False))
        _write(out_dir / PAGE, _page(rows))
        if _finished(photos, out_dir) == seen:
            return failed


def _finished(photos: Sequence[Photo], out_dir: Path) -> set[str]:
    """The names of those for which another process may have come to an end."""
    return {
        f'{photo.name}/{name}'
        for photo in photos
        for name in (DONE, ERROR)
        if (out_dir / photo.name / name).is_file()
    }


def _first_line(path: Path) -> str:
    """What an error was."""
    lines = path.read_text('utf-8', 'replace').splitlines()
    return lines[0] if lines else ''


def _row(
    photo: Photo, done: Sequence[Photo], failed: dict[str, str]
) -> dict[str, Any]:
    """What the list says of a photo."""
    return dict(
        name=photo.name,
        photo=photo.path,
        source=photo.source,
        targets=list(photo.targets),
        row=done.index(photo) if photo in done else None,
        error=failed.get(photo.name),
    )


def _write_embeddings(done: Sequence[Photo], out_dir: Path) -> None:
    """One file of HiPer with a row for each photo that is done."""
    path = out_dir / EMBEDDINGS
    if not done:
        path.unlink(missing_ok=True)
        return
    files = [read_export(out_dir / photo.name / EMBEDDING) for photo in done]
    record = files[0][1]
    record['arguments'] |= dict(
        source_text=[photo.source for photo in done],
        target_text=[photo.targets[0] for photo in done],
    )
    try:
        check_plain(record)
        fits = len(to_json(record)) <= MOST_CHARACTERS
    except ValueError:
        fits = False
    if not fits:
        print(
            f'{len(done)} texts are more than one file can say, so there is '
            f'no {EMBEDDINGS}: the folder of each photo has its {EMBEDDING}.'
        )
        path.unlink(missing_ok=True)
        return
    first = read_safetensors(out_dir / done[0].name / EMBEDDING)[1]
    facts = kept(first, of_words=False)
    tensors = {
        name: torch.cat([each[name] for each, _ in files])
        for name in files[0][0]
    }
    with atomic_path(path) as temporary:
        write_export(temporary, tensors, record, facts)


def _write(path: Path, text: str) -> None:
    """Writes a text, with escapes for names that are none."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode('utf-8', 'backslashreplace'))


def _page(rows: Sequence[dict[str, Any]]) -> str:
    """The page of all sheets; pictures are loaded as they come into view."""
    parts = [
        '<!doctype html><meta charset="utf-8"><title>mmhiper</title>',
        f'<style>{_STYLE}</style>',
    ]
    for row in rows:
        name = html.escape(row['name'])
        parts.append(f'<h2>{name}</h2><p>{html.escape(row["source"])}</p>')
        if row['error'] is not None:
            error = html.escape(row['error'])
            parts.append(f'<p class="error">{error}</p>')
        elif row['row'] is None:
            parts.append('<p>not done yet</p>')
        else:
            link = html.escape(f'{quote(row["name"])}/{SHEET}')
            alt = html.escape(', '.join(row['targets']))
            parts.append(
                f'<a href="{link}"><img loading="lazy" src="{link}" '
                f'alt="{alt}"></a>'
            )
    return '\n'.join(parts) + '\n'
