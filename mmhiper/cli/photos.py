"""The photos of ``mmhiper edit``, and what is said about each."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from mmhiper.datasets.templates import CAPTION_SUFFIXES, find_caption
from mmhiper.datasets.textual_inversion import pictures_in
from mmhiper.io.case_table import read_cases
from mmhiper.many import Photo
from mmhiper.results import OF_ALL
from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.names import safe_name, same_place
from mmhiper.utils.shipped import or_shipped

TABLE = '.csv'


def read_photos(args: argparse.Namespace) -> list[Photo]:
    """Finds the photos of a command line.

    Args:
        args: ``photos``, files, folders and tables; ``source``, no text, one
            for all or one for each; ``target``, texts for all.

    Returns:
        Each with its text and its edits.

    Raises:
        FileNotFoundError: If a file is not there, or a photo has neither a
            ``--source`` nor a caption beside it.
        ValueError: If there is none, or it has no edit, or one that is its
            own text.
    """
    found = [photo for name in args.photos for photo in _named(name)]
    sources = list(args.source or [])
    untold = [photo for photo in found if not photo.source]
    if len(sources) not in (0, 1, len(untold)):
        raise UserError(
            f'Wanted --source once, for all photos, or for each of '
            f'{len(untold)}, but got {len(sources)}.'
        )
    if len(sources) == 1:
        sources *= len(untold)
    texts = iter(sources or [_caption(photo.path) for photo in untold])
    _tell_unread(untold if sources else [])
    photos = []
    taken = {same_place(name) for name in OF_ALL}
    for photo in found:
        source = photo.source or next(texts)
        targets = (*photo.targets, *(args.target or ()))
        _check_texts(photo.path, source, targets)
        name = _own_name(photo.name or Path(photo.path).stem, taken)
        photos.append(Photo(photo.path, source, targets, name))
    return photos


def are_many(args: argparse.Namespace) -> bool:
    """Whether a command line means more than a single photo.

    Args:
        args: See :func:`read_photos`.

    Returns:
        True for a folder and a table too, whatever they hold.
    """
    path = or_shipped(args.photos[0])
    several = path.is_dir() or path.suffix.lower() == TABLE
    return len(args.photos) > 1 or several


def photos_of(cfg: Config) -> list[Photo]:
    """Finds the photos of a config.

    Args:
        cfg: ``photos``, a file, folder or table, or several; in its ``model``
            are the texts of all that have none, as ``source_text`` and
            ``target_text``.

    Returns:
        See :func:`read_photos`, as for the errors.
    """
    named = {
        'photos': cfg.get('photos'),
        'source': cfg.model.get('source_text'),
        'target': cfg.model.get('target_text'),
    }
    lists = {
        key: [value] if isinstance(value, str) else list(value or [])
        for key, value in named.items()
    }
    if not lists['photos']:
        raise UserError(
            '`photos` must name a folder, a table or files, but got none.'
        )
    return read_photos(argparse.Namespace(**lists))


def _named(name: str) -> Iterator[Photo]:
    """The photos of a file, a folder or a table."""
    path = or_shipped(name)
    if path.is_dir():
        yield from map(Photo, pictures_in(path, captions=True))
    elif path.suffix.lower() == TABLE:
        yield from _rows(path)
    else:
        yield Photo(name)


def _rows(table: Path) -> list[Photo]:
    """The photos of a table; rows of one photo and text are one training."""
    photos: dict[tuple[str, str], Photo] = {}
    for case in read_cases(table):
        if case.options:
            raise FileError(
                f'Case {case.name!r} of the table {str(table)!r} has '
                f'{", ".join(f"`{name}`" for name in case.options)}, which '
                'HiPer does not have: they are of editors that invert a '
                'picture. Leave these cells empty, or take '
                'tools/edit_cases.py.'
            )
        key = (case.image, case.prompt)
        known = photos.get(key, Photo(*key, name=case.name))
        targets = (*known.targets, case.target)
        photos[key] = dataclasses.replace(known, targets=targets)
    return list(photos.values())


def _caption(path: str) -> str:
    """What a file beside a photo says that it shows."""
    caption = find_caption(path)
    if caption is None:
        names = ' or '.join(
            repr(str(Path(path).with_suffix(end))) for end in CAPTION_SUFFIXES
        )
        raise MissingFileError(
            f'What does the photo {path!r} show? Say it with --source TEXT '
            '(`model.source_text` of a config), '
            f'or in a file beside it, {names}.'
        )
    return caption[0]


def _tell_unread(photos: Sequence[Photo]) -> None:
    """Says which captions ``--source`` is taken before."""
    unread = [
        str(file)
        for photo in photos
        for end in CAPTION_SUFFIXES
        if (file := Path(photo.path).with_suffix(end)).is_file()
    ]
    if unread:
        warnings.warn(
            f'Not read, as there is a --source: {", ".join(unread)[:300]}.',
            stacklevel=3,
        )


def _check_texts(path: str, source: str, targets: Sequence[str]) -> None:
    """Refuses a photo without an edit, or with one to what it shows."""
    if not targets:
        raise UserError(
            f'What is to be made of the photo {path!r}? Say it with --target '
            'TEXT, once for each edit (`model.target_text` of a config).'
        )
    for target in targets:
        if target.lower().split() == source.lower().split():
            raise UserError(
                f'--target must be another text than what the photo {path!r} '
                f'shows, but got {target!r} for both: nothing would change.'
            )


def _own_name(stem: str, taken: set[str]) -> str:
    """A name of a folder that no photo before has."""
    name, number = safe_name(stem), 1
    while same_place(name) in taken:
        number += 1
        name = safe_name(f'{stem}-{number}')
    taken.add(same_place(name))
    return name
