"""What a training run leaves in its work_dir."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmhiper.utils.errors import MissingFileError


def find_config(work_dir: Path) -> Path:
    """The config that a run left in its work_dir.

    Args:
        work_dir (Path): The folder.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is not exactly one.
    """
    files = sorted(work_dir.glob('*.py'))
    if len(files) != 1:
        raise MissingFileError(
            f'The work_dir {str(work_dir)!r} should hold the config of its '
            f'run, one .py file, but has {len(files)}. Name the config file.'
        )
    return files[0]


def find_checkpoint(work_dir: Path) -> Path:
    """The checkpoint that the last run in a work_dir wrote last.

    Args:
        work_dir (Path): The folder, which may have been moved since.

    Returns:
        Path: The file that MMEngine's note ``last_checkpoint`` names (an
        earlier, longer run may have left larger numbers); without a usable
        note the ``iter_N.pth`` with the largest N.

    Raises:
        FileNotFoundError: If there is none.
    """
    note = work_dir / 'last_checkpoint'
    if note.is_file():
        # empty when the run was killed while writing it
        noted = work_dir / Path(note.read_text(errors='replace').strip()).name
        if os.path.isfile(noted):  # False also for no possible name
            return noted
    steps = {
        int(match[1]): path
        for path in work_dir.glob('iter_*.pth')
        if (match := re.fullmatch(r'iter_(\d+)\.pth', path.name))
    }
    if not steps:
        raise MissingFileError(
            f'The work_dir {str(work_dir)!r} has no checkpoint (iter_*.pth) '
            'yet. Train first, or name a checkpoint.'
        )
    return steps[max(steps)]
