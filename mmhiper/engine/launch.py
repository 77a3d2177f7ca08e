"""Starting a run: device and backend, resuming, what the console shows."""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import shlex
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.runner import Runner
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from mmhiper.io import read_checkpoint
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.errors import MissingFileError, UserError
from mmhiper.utils.work_dir import find_checkpoint

_MMENGINE = os.path.dirname(mmengine.__file__)
# What mmengine says about its own affairs, in messages that cannot be told
# from others by where they come from.
_OWN_AFFAIRS = re.compile(
    '"FileClient"|"HardDiskBackend"|Advance dataloader|Exp name:'
)


def _is_for_user(record: logging.LogRecord) -> bool:
    """Whether a log record is shown on the console.

    Of mmengine's INFO lines (environment, whole config, list of hooks ...)
    only the progress of the training is; of other packages all are, also
    through mmengine's ``print_log``.
    """
    if _OWN_AFFAIRS.match(record.getMessage()):
        return False
    return (
        record.levelno >= logging.WARNING
        or record.funcName == 'print_log'
        or record.module == 'logger_hook'
        or not record.pathname.startswith(_MMENGINE)
    )


class ConciseRunner(Runner):
    """mmengine's Runner with a console for users.

    The log file keeps everything; the console shows progress, warnings and
    what this package has to say.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """Build the logger, with a filter on its console handler."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_user)
        return logger

    def wrap_model(self, model_wrapper_cfg: Any, model: Any) -> Any:
        """Wrap the editor so that steps may leave parameters alone."""
        if model_wrapper_cfg and getattr(model, 'may_skip_parameters', False):
            model_wrapper_cfg = {
                **model_wrapper_cfg,
                'find_unused_parameters': True,
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint without mmengine's print on how it reads it."""
        with redirect_stdout(io.StringIO()):
            return super().load_checkpoint(*args, **kwargs)


def check_writable(folder: str | Path) -> None:
    """Create a folder for results, and refuse one that cannot be written.

    Args:
        folder (str | Path): The folder.

    Raises:
        ValueError: If it cannot be created or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f'Cannot write to the folder {str(folder)!r}: {error.strerror}. '
            'Choose another one (--work-dir, --out-dir) or free its place.'
        ) from None


def set_resume(cfg: Config, resume: str) -> str:
    """Let a run continue from a checkpoint.

    Args:
        cfg (Config): Config of the run, changed in place.
        resume (str): Path of a checkpoint, or ``'auto'`` for the latest one
            in ``cfg.work_dir``.

    Returns:
        str: One line that says what happens.

    Raises:
        FileNotFoundError: If a named checkpoint does not exist.
        ValueError: If it is no checkpoint, or a damaged one.
    """
    if resume == 'auto':
        try:
            resume = str(find_checkpoint(Path(cfg.work_dir)))
        except FileNotFoundError:
            return (
                f'Nothing to resume: no checkpoint in {cfg.work_dir!r}. '
                'Starting from the beginning.'
            )
    elif not Path(resume).is_file():
        raise MissingFileError(
            f'Wanted a checkpoint to resume, but {resume!r} does not exist. '
            'Give the path of an iter_N.pth, or --resume alone for the '
            'latest one of the work dir.'
        )
    elif Path(resume).suffix == '.safetensors':
        raise UserError(
            f'Wanted a checkpoint to resume, but {resume!r} is an export, '
            'which has no state of the optimiser. Give the iter_N.pth '
            'beside it.'
        )
    read_checkpoint(resume)  # says what is wrong with a damaged file
    cfg.resume, cfg.load_from = True, resume
    return f'Resuming from {resume}.'


def set_up_processes(cfg: Config, launcher: str) -> None:
    """Choose the backend of a run with several processes.

    With CUDA devices mmengine's own set-up (nccl, one device per process)
    serves. Without, mmengine would still call ``torch.cuda.set_device``; so
    the gloo group is initialised here, which mmengine then takes over. A
    single process needs no group and no wrapper at all.

    Args:
        cfg (Config): Config of the run, changed in place.
        launcher (str): ``'none'``, or ``'pytorch'`` when started by
            ``torch.distributed.run``.

    Raises:
        ValueError: If a machine has CUDA devices, but fewer than processes.
    """
    if launcher == 'none' or int(os.environ.get('WORLD_SIZE', 1)) == 1:
        cfg.launcher = 'none'
        return
    cfg.launcher = launcher
    wrapper: dict[str, Any] = dict(type='MMDistributedDataParallel')
    # The buffers are frozen: nothing to synchronise at each step. The new
    # name is since torch 2.13, which warns about the old one.
    known = inspect.signature(DistributedDataParallel).parameters
    new = 'forward_sync_buffers' in known
    wrapper['forward_sync_buffers' if new else 'broadcast_buffers'] = False
    if torch.cuda.is_available():
        wanted = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if wanted > torch.cuda.device_count():
            raise UserError(
                f'{wanted} processes were asked for on this machine, but it '
                f'has {torch.cuda.device_count()} CUDA device(s). Give at '
                'most that many, or set CUDA_VISIBLE_DEVICES= to run on the '
                'CPU.'
            )
        wrapper['device_ids'] = [int(os.environ['LOCAL_RANK'])]
    else:
        cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
        wrapper['device_ids'] = None
        if not is_distributed():
            distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = wrapper


def train(
    cfg: Config, launcher: str = 'none', resume: str | None = None
) -> Runner:
    """Run the training that a config describes.

    Args:
        cfg (Config): The config, with ``work_dir``.
        launcher (str): See :func:`set_up_processes`.
        resume (str, optional): See :func:`set_resume`.

    Returns:
        Runner: The runner after training; its ``model`` is the editor.

    Raises:
        ValueError: If an option or an input file is wrong.
        FileNotFoundError: If an input file does not exist.
        KeyboardInterrupt: At Ctrl-C; it says what is saved.
    """
    register_all_modules()
    # Read the images first: a missing one should not cost the loading, or
    # even the download, of a backbone.
    DATASETS.build(cfg.train_dataloader.dataset)
    check_writable(cfg.work_dir)
    note = None if resume is None else set_resume(cfg, resume)
    set_up_processes(cfg, launcher)
    runner = None
    try:
        runner = ConciseRunner.from_cfg(cfg)
        if note:
            runner.logger.info(note)
        runner.train()
        return runner
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_what_is_saved(runner)) from None
    finally:
        if is_distributed():
            distributed.destroy_process_group()


def _what_is_saved(runner: Runner | None) -> str:
    """What a run that was stopped leaves, and how it goes on.

    Args:
        runner (Runner, optional): None if it was stopped before it was built.

    Returns:
        str: A sentence or two.
    """
    last = runner and runner.message_hub.get_info('last_ckpt')
    if not runner or not last:
        return 'Nothing is saved yet.'
    name = runner.cfg.filename or f'{runner.timestamp}.py'
    config = Path(runner.work_dir, Path(name).name)  # as it was run
    return (
        f'Saved: {last}; iteration {runner.iter} was reached.\n'
        f'To go on: {shlex.join(["mmhiper", "train", str(config)])} --resume'
    )
