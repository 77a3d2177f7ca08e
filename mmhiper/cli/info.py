"""Say what a checkpoint, an export, an embedding file or a picture holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmhiper.io import (
    read_learned,
    read_picture_record,
    read_token_file,
)
from mmhiper.io.checkpoint import notes_of
from mmhiper.io.export import FORMAT
from mmhiper.io.file_content import FileContent, read_content
from mmhiper.io.modelspec import PREFIX, fields_in, shown
from mmhiper.utils.picture_files import is_picture, open_picture
from mmhiper.utils.reading import check_file, printable, sha256
from mmhiper.utils.units import plain_size

EXAMPLE = """\
  mmhiper info work_dirs/dog/iter_1200.pth
  mmhiper info out/003.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument(
        'file',
        help='a checkpoint or export of this package, an embedding of any '
        'format, or a picture that this package drew',
    )


def run(args: argparse.Namespace) -> None:
    """Print one fact per line."""
    path = check_file(args.file)
    facts = dict(facts_of(path))  # a bad file is an error and nothing else
    _show('file', f'{path} ({plain_size(path.stat().st_size)})')
    _show('sha256', sha256(path))
    for name, value in facts.items():
        _show(name, value)


def facts_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Finds out what a file holds.

    Yields:
        A name, and a value, a mapping or a text.

    Raises:
        ValueError: If the file is damaged or of an unknown kind.
    """
    if is_picture(path):
        made = read_picture_record(path)
        with open_picture(path) as image:
            size = f'{image.width} x {image.height} pixels'
        yield 'kind', f'picture, {size}'
        yield from made.items()
        return
    content = read_content(path)
    if not _is_ours(content):
        yield 'kind', 'embedding of Textual Inversion'
        yield '', read_token_file(path).describe()
        return
    tensors, record = read_learned(path)
    yield (
        'kind',
        (
            'training checkpoint, which can be resumed'
            if 'state_dict' in content.entries
            else 'export of what was learned'
        ),
    )
    yield from record.facts().items()
    for name, tensor in tensors.items():
        yield name, _describe(tensor)
    for name, value in sorted(fields_in(content.metadata).items()):
        yield f'{PREFIX}{shown(name)}', shown(value)


def _is_ours(content: FileContent) -> bool:
    """Whether a training of this package wrote a file."""
    state = content.entries.get('state_dict')
    if isinstance(state, Mapping):
        # also where a stock runner wrote it; others have the whole model
        return 'editor' in notes_of(state).get('', {})
    return content.metadata.get('format') == FORMAT


def _describe(tensor: Tensor) -> str:
    """Shape, kind and norm of a learned tensor."""
    words = f'{tuple(tensor.shape)} {str(tensor.dtype).split(".")[-1]}'
    if tensor.is_floating_point():
        words += f', norm {tensor.norm():.4g}'
    return words


def _show(name: str, value: Any) -> None:
    """Prints a fact; the facts in it each on a line of its own."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _show(f'{name} {key}', inner)
    elif name:
        # a stranger's words, which a terminal must not obey
        print(f'{printable(name):28s} {printable(value)}')
    else:
        print(value)
