"""Going on with the run that was meant, and with nothing else."""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmhiper.datasets import SourceImageDataset
from mmhiper.engine.hooks import to_plain
from mmhiper.io import check_resumable
from mmhiper.registry import MODELS
from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.work_dir import (
    Found,
    RunMark,
    checkpoints_of,
    damaged_checkpoints,
    list_checkpoints,
    read_found,
    read_mark,
    unmarked_checkpoints,
)

# Settings that say what is learned: with another value half of a training
# would be of one thing, and half of another. All else is only told.
_IDENTITY = (
    'pictures',
    'model.type',
    'model.source_text',
    'model.placeholder_token',
    'model.n_hiper',
    'model.num_vectors_per_token',
    'model.num_steps',
    'model.sd.pretrained',
    'model.image_encoder.pretrained',
)
# What a checkpoint keeps of a run, whatever the config says by now.
_KEPT = ('randomness.seed', 'optim_wrapper.optimizer.')
_RESUME_ANYWAY = '--resume-anyway goes on all the same'


def settings_of(cfg: Config, dataset: Any) -> dict[str, Any]:
    """What decides what a run learns.

    Args:
        cfg: Config of the run.
        dataset: Its pictures.

    Returns:
        Plain values by their names in the config, and 'pictures', which names
        each picture by its content.
    """
    model, loader = dict(cfg.model), cfg.train_dataloader
    kind = model['type']
    editor = MODELS.get(kind) if isinstance(kind, str) else kind
    if editor is not None:  # else the error comes when it is built
        arguments = inspect.signature(editor).parameters.values()
        for each in arguments:
            if each.default is not each.empty:
                model.setdefault(each.name, each.default)
    settings = _flat(
        to_plain(
            dict(
                model=model,
                optim_wrapper=cfg.get('optim_wrapper') or {},
                param_scheduler=cfg.get('param_scheduler') or [],
                randomness=dict(seed=cfg.get('randomness', {}).get('seed')),
                batch_size=loader.get('batch_size'),
                template=loader.dataset.get('template'),
            )
        )
    )
    if isinstance(dataset, SourceImageDataset):
        settings['pictures'] = [
            _name_of(dataset[index]) for index in range(len(dataset))
        ]
    return settings


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested values by dotted names; a list of one is that one."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f'{prefix}{key}.')
        elif isinstance(value, list | tuple):
            flat[prefix + key] = value[0] if len(value) == 1 else [*value]
        else:
            flat[prefix + key] = value
    return flat


def _name_of(item: dict[str, Any]) -> str:
    """A short hash of a picture and its mask, as they are learned from."""
    content = item['inputs'].cpu().contiguous().numpy().tobytes()
    mask = item['data_samples'].get('mask')
    if mask is not None:
        content += mask.cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


class Plan:
    """Which run this is, and where it starts.

    Attributes:
        run: Of this run, for its checkpoints: 'id', 'started' and 'settings',
            plain values.
        checkpoint: The one that it goes on from; '' for none.
        words: What the user is to know, with levels of ``logging``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        self.run: dict[str, Any] = dict(
            id=uuid.uuid4().hex, started=now.isoformat(), settings=settings
        )
        self.checkpoint = ''
        self.words: list[tuple[int, str]] = []

    def note(self, words: str) -> None:
        """Adds something to know."""
        self.words.append((logging.INFO, words))

    def warn(self, words: str) -> None:
        """Adds something to think of."""
        self.words.append((logging.WARNING, words))

    def mark(self, cfg: Config) -> RunMark:
        """What is noted in the work_dir before the run begins.

        Args:
            cfg: Config of the run.

        Returns:
            The note.
        """
        folder = checkpoint_folder(cfg)
        inside = folder == Path(cfg.work_dir).absolute()
        return RunMark(
            id=self.run['id'],
            started=self.run['started'],
            config=Path(cfg.filename or '').name,
            checkpoints='' if inside else str(folder),
            resumed=self.checkpoint and str(Path(self.checkpoint).absolute()),
            pid=os.getpid(),
            host=socket.gethostname(),
        )

    def go_on(self, found: Found, anyway: bool) -> None:
        """Continues the run that wrote a checkpoint.

        Args:
            found: The checkpoint.
            anyway: Whether to mix what does not belong together.

        Raises:
            ValueError: If the run learned something else, or the checkpoint
                has no state to go on from.
        """
        check_resumable(found.path)  # what MMEngine would meet later
        self.checkpoint = str(found.path)
        self.note(f'Resuming from {found.path}.')
        if not found.run:
            self.note(
                'The checkpoint does not say what it was trained with: see '
                'to it that picture, texts and settings are the same.'
            )
            return
        self.run |= {key: found.run[key] for key in ('id', 'started')}
        before = found.run.get('settings')
        if isinstance(before, Mapping):
            self._compare(before, found.path, anyway)

    def _compare(
        self, before: Mapping[str, Any], path: Path, anyway: bool
    ) -> None:
        """Tells, or refuses, what is no longer as it was."""
        now = self.run['settings']
        differing = [
            key
            for key in dict.fromkeys([*now, *before])
            if not _same(key, before.get(key), now.get(key))
        ]
        mixed = [key for key in differing if key in _IDENTITY]
        if mixed and not anyway:
            raise UserError(
                f'{str(path)!r} was trained with something else, so to resume '
                'it would mix two trainings:\n'
                + _table(mixed, before, now)
                + '\nResume with the same, or start a new run (leave out '
                f'--resume, or give another --work-dir); {_RESUME_ANYWAY}.'
            )
        if differing:
            self.warn(
                'The checkpoint was trained with other settings:\n'
                + _table(differing, before, now)
            )


def _same(key: str, before: Any, now: Any) -> bool:
    """Whether a setting is as it was; a model may lie elsewhere by now."""
    if key.endswith('.pretrained') and {type(before), type(now)} == {str}:
        before, now = Path(before).name, Path(now).name
    return bool(before == now)


def _table(
    keys: list[str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> str:
    """A line for each setting that differs."""
    lines = []
    for key in keys:
        kept = ' (stays)' if key.startswith(_KEPT) else ''
        was, is_ = (json.dumps(each.get(key)) for each in (before, now))
        lines.append(f'  {key}: {was} in the checkpoint{kept}, {is_} now')
    return '\n'.join(lines)


def checkpoint_folder(cfg: Config) -> Path:
    """Where a run writes its checkpoints.

    Args:
        cfg: Config of the run, with ``work_dir``.

    Returns:
        The work_dir; with an ``out_dir`` of the checkpoint hook the folder in
        it that has the name of the work_dir, as MMEngine has it.
    """
    work_dir = Path(cfg.work_dir).absolute()
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')
    if not out_dir or str(out_dir) == str(work_dir):
        return work_dir
    return Path(out_dir).absolute() / work_dir.name


def make_plan(
    cfg: Config, dataset: Any, resume: str | None, anyway: bool = False
) -> Plan:
    """Decides where a run starts.

    Args:
        cfg: Config of the run.
        dataset: Its pictures.
        resume: Path of a checkpoint; 'auto' for the newest complete one of the
            run that was last started in ``cfg.work_dir``; None for a new run.
        anyway: Whether to resume a checkpoint of another training.

    Returns:
        What was decided.

    Raises:
        FileNotFoundError: If a named checkpoint does not exist.
        ValueError: If it is no checkpoint, a damaged one, or one of another
            training.
    """
    plan = Plan(settings_of(cfg, dataset))
    if resume is None:
        return plan
    if resume != 'auto':
        plan.go_on(_named(Path(resume)), anyway)
        return plan
    found = _newest(cfg, plan)
    if found is not None:
        plan.go_on(found, anyway)
    return plan


def _named(path: Path) -> Found:
    """A checkpoint that was named to resume from."""
    if not path.is_file():
        raise MissingFileError(
            f'Wanted a checkpoint to resume, but {str(path)!r} does not '
            'exist. Give the path of an iter_N.pth, or --resume alone for '
            'the latest one of the work dir.'
        )
    if path.suffix == '.safetensors':
        raise UserError(
            f'Wanted a checkpoint to resume, but {str(path)!r} is an export, '
            'which has no state of the optimiser. Give the iter_N.pth '
            'beside it.'
        )
    found = read_found(path)
    if found is None:
        raise FileError(
            f'{str(path)!r} is not a complete checkpoint: it is damaged, or '
            'no checkpoint at all. Give another iter_N.pth, or --resume '
            'alone for the newest complete one of the work dir.'
        )
    return found


def _newest(cfg: Config, plan: Plan) -> Found | None:
    """Finds what 'auto' means; the plan gets words on it."""
    work_dir, folder = Path(cfg.work_dir), checkpoint_folder(cfg)
    mark = read_mark(work_dir)
    if mark is None:
        found = next(unmarked_checkpoints(folder), None)
    else:
        found = next(checkpoints_of(work_dir, mark), None)
    if found is not None:
        for path in damaged_checkpoints({found.path.parent}, found.path):
            plan.warn(
                f'{str(path)!r} is damaged (empty or cut off): resuming from '
                f'the newest complete checkpoint, {found.path.name}.'
            )
        return found
    present = list_checkpoints(folder)
    if not present:
        plan.note(
            f'Nothing to resume: no checkpoint in {str(folder)!r}. Starting '
            'from the beginning.'
        )
        return None
    if not any(map(read_found, present)):
        raise FileError(
            f'{str(present[0])!r} is not a complete checkpoint, nor is any '
            'other of the run. Leave out --resume to start from the '
            'beginning.'
        )
    names = ', '.join(path.name for path in present[:5])
    plan.warn(
        'The run that was started last has no complete checkpoint yet: '
        f'starting from the beginning. Of an earlier run there are {names}'
        f'{" and more" if len(present) > 5 else ""} in {str(folder)!r}; '
        '"--resume PATH" goes on from one of them.'
    )
    return None
