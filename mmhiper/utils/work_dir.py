"""What training runs leave in their work_dir, and which run was the last."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mmhiper.io.file_content import read_content
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import MissingFileError, UserError

MARK = 'run.json'
_MAX_MARK = 100_000  # bytes; a few hundred are written


@dataclass(frozen=True)
class RunMark:
    """What a run notes in its work_dir before it begins.

    Attributes:
        id: The run; its checkpoints say it too.
        started: When, in UTC, as ISO 8601: the later the larger.
        config: Name of the config in the work_dir.
        checkpoints: Folder of its checkpoints; '' for the work_dir.
        resumed: The checkpoint that it goes on from; '' for none.
        pid: The process that is running it, or was.
        host: The machine of that.
    """

    id: str
    started: str
    config: str
    checkpoints: str
    resumed: str
    pid: int
    host: str


@dataclass(frozen=True)
class Found:
    """A complete checkpoint.

    Attributes:
        path: The file.
        run: What the run that wrote it says of itself; empty where it does
            not.
    """

    path: Path
    run: Mapping[str, Any]

    @property
    def id(self) -> str | None:
        """Of the run that wrote it."""
        return self.run.get('id')


def write_mark(work_dir: str | Path, mark: RunMark) -> None:
    """Notes which run has a work_dir from now on."""
    with atomic_path(Path(work_dir, MARK)) as temporary:
        temporary.write_text(json.dumps(asdict(mark), indent=1))


def read_mark(work_dir: str | Path) -> RunMark | None:
    """Which run had a work_dir last.

    Returns:
        None if no run noted itself there, or its note is damaged.
    """
    path = Path(work_dir, MARK)
    if not path.is_file():
        return None
    try:
        with path.open('rb') as file:
            noted = json.loads(file.read(_MAX_MARK))
        mark = RunMark(**noted)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = {'int': int, 'str': str}
    if any(
        type(getattr(mark, field.name)) is not kinds[str(field.type)]
        for field in fields(RunMark)
    ):
        return None
    return mark


def read_found(path: Path) -> Found | None:
    """A checkpoint, if it is complete.

    Returns:
        None if it is empty, truncated or damaged, or no checkpoint.
    """
    try:
        content = read_content(path).entries
    except (OSError, UserError):
        return None
    meta = content.get('meta')
    if 'state_dict' not in content:
        return None
    run = meta.get('run') if isinstance(meta, Mapping) else None
    if not isinstance(run, Mapping):
        return Found(path, {})
    known = all(isinstance(run.get(key), str) for key in ('id', 'started'))
    return Found(path, run if known else {})


def list_checkpoints(folder: Path) -> list[Path]:
    """Files named as checkpoints are, that of the largest number first.

    Args:
        folder: Of checkpoints.

    Returns:
        'iter_N.pth', 'epoch_N.pth' and so on, not read.
    """
    # the best ones are copies that cannot be resumed
    names = re.compile(r'(?!best_).*\d+\.pth')
    paths = [p for p in folder.glob('*.pth') if names.fullmatch(p.name)]
    return sorted(paths, key=_number_of, reverse=True)


def checkpoints_of(work_dir: Path, mark: RunMark) -> Iterator[Found]:
    """The complete checkpoints of a run, the newest first.

    Args:
        work_dir: Its folder, which may have been moved since.

    Yields:
        In the work_dir, and in the folder that the run says it writes to; only
        what says that it is of this run counts, wherever it lies.
    """
    folders = {work_dir.absolute()}
    if mark.checkpoints:
        folders.add(Path(mark.checkpoints))
    for path in _by_number(folders):
        found = read_found(path)
        if found and found.id == mark.id:
            yield found
    # What it went on from, if no more than that was done. One that names no
    # run, of an earlier version, counts in this folder alone.
    path = Path(mark.resumed)
    for place, ids in (
        (work_dir / path.name, (None, mark.id)),
        (path, (mark.id,)),
    ):
        found = read_found(place)
        if found and found.id in ids:
            yield found
            return


def _by_number(folders: set[Path]) -> list[Path]:
    """The checkpoints of several folders, the largest number first."""
    paths = [path for folder in folders for path in list_checkpoints(folder)]
    return sorted(paths, key=_number_of, reverse=True)


def _number_of(path: Path) -> int:
    """The last number in the name of a checkpoint."""
    return int(re.findall(r'\d+', path.name)[-1])


def unmarked_checkpoints(work_dir: Path) -> Iterator[Found]:
    """The complete checkpoints of a folder without a mark.

    Args:
        work_dir: The folder, which may have been moved since.

    Yields:
        What MMEngine's note ``last_checkpoint`` names first (an earlier,
        longer run may have left larger numbers), then those with smaller
        numbers, then the others.
    """
    paths = list_checkpoints(work_dir)
    note = work_dir / 'last_checkpoint'
    if note.is_file():
        # empty when the run was killed while writing it
        with note.open(encoding='utf-8', errors='replace') as file:
            noted = work_dir / Path(file.read(_MAX_MARK).strip()).name
        if noted in paths:
            newer = [p for p in paths if _number_of(p) > _number_of(noted)]
            older = [p for p in paths if p not in (*newer, noted)]
            paths = [noted, *older, *newer]
    for path in paths:
        if found := read_found(path):
            yield found


def damaged_checkpoints(folders: set[Path], chosen: Path) -> list[Path]:
    """Checkpoints that are newer than a complete one, but are not complete.

    Args:
        folders: Where checkpoints lie.
        chosen: The complete one.

    Returns:
        By their numbers, the largest first.
    """
    least = _number_of(chosen)
    newer = (p for p in _by_number(folders) if _number_of(p) > least)
    return [path for path in newer if read_found(path) is None]


def find_checkpoint(work_dir: Path) -> Path:
    """The checkpoint that the last run in a work_dir wrote last.

    Args:
        work_dir: The folder, which may have been moved since.

    Returns:
        The newest complete one of the run that was started last; if that has
        none yet, of the one before. A warning says what was passed over.

    Raises:
        FileNotFoundError: If there is none.
    """
    mark = read_mark(work_dir)
    if mark is None:
        chosen = next(unmarked_checkpoints(work_dir), None)
    else:
        chosen = next(checkpoints_of(work_dir, mark), None)
        if chosen is None and (chosen := _latest_in(work_dir)):
            warnings.warn(
                f'The run that was started last in {str(work_dir)!r} has no '
                f'checkpoint yet: taking {chosen.path.name} of the one '
                'before.',
                stacklevel=2,
            )
    if chosen is None:
        raise MissingFileError(
            f'The work_dir {str(work_dir)!r} has no checkpoint (iter_*.pth) '
            'that is complete. Train first, or name a checkpoint.'
        )
    for path in damaged_checkpoints({chosen.path.parent}, chosen.path):
        warnings.warn(
            f'{str(path)!r} is damaged: taking {chosen.path.name}.',
            stacklevel=2,
        )
    return chosen.path


def _latest_in(folder: Path) -> Found | None:
    """Of the runs with a checkpoint there, the last one's newest."""
    read = map(read_found, list_checkpoints(folder))
    complete = [found for found in read if found]
    # of one run the first, which has the largest number
    return max(
        complete, key=lambda found: found.run.get('started', ''), default=None
    )
