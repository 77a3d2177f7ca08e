"""Starting a run: device and backend, resuming, what the console shows."""

from __future__ import annotations

import errno
import inspect
import io
import logging
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
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
from mmhiper.utils.work_dir import find_checkpoint

_MMENGINE = os.path.dirname(mmengine.__file__)
# of the operating system, to write
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC)
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
        raise ValueError(
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
        raise FileNotFoundError(
            f'Wanted a checkpoint to resume, but {resume!r} does not exist. '
            'Give the path of an iter_N.pth, or --resume alone for the '
            'latest one of the work dir.'
        )
    elif Path(resume).suffix == '.safetensors':
        raise ValueError(
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
            raise ValueError(
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


def _found_by_us(error: BaseException) -> bool:
    """Whether an error was raised by this package or one of its tools."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    file = Path(trace.tb_frame.f_code.co_filename).resolve()
    return file.is_relative_to(Path(__file__).parents[1]) or (
        file.parent == Path(sys.argv[0]).resolve().parent
    )


def _mistake(error: Exception) -> str | None:
    """What to tell a user whose mistake an error is.

    Args:
        error (Exception): Any.

    Returns:
        str, optional: None if it is a bug.
    """
    words = str(error)
    if isinstance(error, FileNotFoundError):
        if error.filename:
            return f'There is no file {error.filename!r}. Check the path.'
        return words
    if isinstance(error, ValueError) and _found_by_us(error):
        return words
    if isinstance(error, torch.OutOfMemoryError):
        return (
            'The memory of the device is used up. Draw fewer pictures at a '
            "time, load the backbone in half (model.sd.dtype='bf16'), or free "
            'memory that other programs hold ("mmhiper doctor" shows it).'
        )
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return f'{error.strerror}: {error.filename or "no file is named"}.'
    if isinstance(error, TypeError) and 'unexpected keyword' in words:
        return f'{words} (check the options, and the config)'
    if isinstance(error, ImportError) and 'install' in words:
        return words  # an optional package that a config asks for
    if isinstance(error, KeyError) and ' registry' in words:
        # of mmengine: an unknown `type` in a config
        return str(error.args[0])
    return None


@contextmanager
def user_errors(debug: bool = False) -> Iterator[None]:
    """Report a user's mistake in one line instead of a traceback.

    Ends the process with code 1 after a mistake, 130 after Ctrl-C. A mistake
    is a ``ValueError`` that this package raised, a file that does not exist,
    cannot be written or finds no space, an unknown option or type in a
    config, a missing optional package, or too little memory. Everything else
    is a bug and keeps its traceback.

    Args:
        debug (bool): Whether a mistake keeps its traceback too.
    """
    first = int(os.environ.get('RANK', 0)) == 0
    try:
        yield
    except Exception as error:
        words = _mistake(error)
        if debug or words is None:
            raise
        if not first:
            # Every process finds the same mistake. The first one tells, and
            # the launcher ends the others at its exit; unless it has not
            # found it, on another machine for instance.
            time.sleep(30)
        print(f'error: {words}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        if first:
            # on a line of its own, not behind a progress bar
            print(f'\nInterrupted. {stop}'.rstrip(), file=sys.stderr)
        sys.exit(130)
