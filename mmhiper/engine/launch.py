"""Starting a run: device and backend, resuming, what the console shows."""

from __future__ import annotations

import copy
import gc
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config
from mmengine.dist import (
    broadcast_object_list,
    is_distributed,
    is_main_process,
    master_only,
)
from mmengine.runner import Runner
from torch import distributed
from typing_extensions import override

from mmhiper.engine.fused import with_fused_step
from mmhiper.engine.hooks import (
    CardHook,
    InterruptionHook,
    LearnedHook,
    RunHook,
    config_of,
)
from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.engine.hooks.plain_checkpoint_hook import drop_config
from mmhiper.engine.learnable import check_learnable
from mmhiper.engine.processes import (
    lost_contact,
    set_up_processes,
    timeout_of,
)
from mmhiper.engine.resuming import Plan, checkpoint_folder, make_plan
from mmhiper.engine.run_lock import run_lock
from mmhiper.engine.settings import check_settings
from mmhiper.interruption import STOP
from mmhiper.io import read_checkpoint
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import (
    WriteError,
    atomic_path,
    check_writable,
    remove_leftovers,
)
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import UserError
from mmhiper.utils.work_dir import write_mark

_MMENGINE = os.path.dirname(mmengine.__file__)
# What mmengine says about its own affairs, in messages that cannot be told
# from others by where they come from.
_OWN_AFFAIRS = re.compile(
    '"FileClient"|"HardDiskBackend"|Advance dataloader|Exp name:'
)


def _is_for_user(record: logging.LogRecord) -> bool:
    """Whether a log record is shown on the console."""
    # Of mmengine's INFO lines (environment, whole config, list of hooks ...)
    # only the progress of the training is; of other packages all are, also
    # through mmengine's ``print_log``.
    if _OWN_AFFAIRS.match(record.getMessage()):
        return False
    return (
        record.levelno >= logging.WARNING
        or record.funcName == 'print_log'
        or record.module == 'logger_hook'
        or not record.pathname.startswith(_MMENGINE)
    )


def _survive_a_full_disk(handler: logging.FileHandler) -> None:
    """Says once, in a line, that a log cannot be written."""
    # Python would print a traceback at each line. The run goes on: it is the
    # next checkpoint that matters.

    def say(record: logging.LogRecord) -> None:
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        reason = sys.exc_info()[1]
        with suppress(OSError):
            print(
                f'warning: the log {handler.baseFilename!r} cannot be '
                f'written: {reason}',
                file=sys.stderr,
            )

    handler.handleError = say  # type: ignore[method-assign]


class ConciseRunner(Runner):
    """mmengine's Runner with a console for users.

    The log file keeps everything; the console shows progress, warnings and
    what this package has to say.
    """

    _train_dataloader: Any  # its config, until the training begins

    @override
    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """Build the logger, with a filter on its console handler."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                _survive_a_full_disk(handler)
            else:
                handler.addFilter(_is_for_user)
        return logger

    @override
    @master_only
    def dump_config(self) -> None:
        """Write the config to the work_dir, in one step.

        Where this run goes on from is no part of it: another run of the same
        config starts at the beginning.
        """
        cfg = copy.deepcopy(self.cfg)
        if cfg.get('resume'):
            cfg.resume, cfg.load_from = False, None
        text = cfg.dump()
        with atomic_path(config_of(self)) as temporary:
            temporary.write_text(text, encoding='utf-8')

    @override
    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build it with a fused step where the device has one."""
        if isinstance(optim_wrapper, Mapping):
            optim_wrapper = with_fused_step(optim_wrapper)
        return super().build_optim_wrapper(optim_wrapper)

    def take_dataset(self, dataset: Any) -> None:
        """Train on a dataset that is built, whose pictures are decoded."""
        self._train_dataloader = {
            **self._train_dataloader,
            'dataset': dataset,
        }

    @override
    def wrap_model(self, model_wrapper_cfg: Any, model: Any) -> Any:
        """Wrap the editor so that steps may leave parameters alone."""
        if model_wrapper_cfg and getattr(model, 'may_skip_parameters', False):
            model_wrapper_cfg = {
                **model_wrapper_cfg,
                'find_unused_parameters': True,
            }
        model = super().wrap_model(model_wrapper_cfg, model)
        # mmengine does not know all devices that PyTorch does
        return model if self.distributed else model.to(best_device())

    @override
    def load_checkpoint(self, filename: str, *args: Any, **more: Any) -> Any:
        """Load a checkpoint without mmengine's print on how it reads it.

        Only a file of tensors and plain values: mmengine itself would also
        fetch one from the network, and unpickle whatever is in it. A config
        in it is dropped, whatever hooks there are: resuming would run it.
        """
        read_checkpoint(filename)
        with redirect_stdout(io.StringIO()):
            checkpoint = super().load_checkpoint(filename, *args, **more)
        drop_config(checkpoint)
        return checkpoint


def train(
    cfg: Config,
    launcher: str = 'none',
    resume: str | None = None,
    resume_anyway: bool = False,
) -> Runner:
    """Run the training that a config describes.

    Args:
        cfg: The config, with ``work_dir``.
        launcher: See :func:`set_up_processes`.
        resume: See :func:`make_plan`.
        resume_anyway: Whether to resume a checkpoint of another picture, text
            or model all the same.

    Returns:
        The runner after training; its ``model`` is the editor.

    Raises:
        ValueError: If an option or an input file is wrong, or a number of
            the training is no longer finite.
        FileNotFoundError: If an input file does not exist.
        KeyboardInterrupt: At Ctrl-C, SIGTERM or SIGHUP; it says what is
            saved.
    """
    register_all_modules()
    check_settings(cfg)
    if cfg.get('images_per_step'):
        raise UserError(
            'A config with `images_per_step` is of many images, each with its '
            'own text: run it by "mmhiper train", or from Python by '
            '`mmhiper.many.personalise`.'
        )
    if cfg.get('resume'):  # as other OpenMMLab projects have it
        resume = resume or cfg.get('load_from') or 'auto'
        cfg.resume, cfg.load_from = False, None
    # Read the images first: a missing one should not cost the loading, or
    # even the download, of a backbone.
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    check_writable(cfg.work_dir)
    runner = None
    with STOP.handled(), ExitStack() as stack:
        try:
            set_up_processes(cfg, launcher)
            if is_main_process():
                stack.enter_context(run_lock(cfg.work_dir))
            plan = _begin(cfg, dataset, resume, resume_anyway)
            runner = ConciseRunner.from_cfg(cfg)
            check_learnable(cfg, dataset, editor_of(runner))
            runner.take_dataset(dataset)
            runner.register_hook(RunHook(plan.run, plan.checkpoint))
            runner.register_hook(InterruptionHook())
            runner.register_hook(LearnedHook())
            runner.register_hook(CardHook())
            for level, words in plan.words:
                runner.logger.log(level, words)
            runner.train()
            return runner
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_saved(runner)) from None
        except Exception as error:
            if STOP.signum is not None:  # what a package made of it
                raise KeyboardInterrupt(_what_is_saved(runner)) from error
            raise _told(error, cfg) from error
        finally:
            STOP.careful = False
            if is_distributed():
                _leave_group(runner)


def _leave_group(runner: Any) -> None:
    """Ends the process group, and the threads that belong to it.

    The wrapper of the model holds the group. What a thread of it still drops
    when the interpreter has ended aborts the process.
    """
    if runner is not None:
        runner.model = editor_of(runner)
    distributed.destroy_process_group()
    gc.collect()


def _begin(
    cfg: Config, dataset: Any, resume: str | None, anyway: bool
) -> Plan:
    """Decides what the run is, and has its folder say so."""
    # the same in all processes, as the first one decides; `cfg` is changed in
    # place
    plans: list[Any] = [None]
    if is_main_process():
        plan = make_plan(cfg, dataset, resume, anyway)
        work_dir = Path(cfg.work_dir)
        for each in (work_dir, work_dir / 'previews', checkpoint_folder(cfg)):
            remove_leftovers(each)
        write_mark(work_dir, plan.mark(cfg))
        plans = [plan]
    broadcast_object_list(plans)
    if plans[0].checkpoint:
        cfg.resume, cfg.load_from = True, plans[0].checkpoint
    hooks = dict(cfg.get('default_hooks') or {})
    # of a config of an earlier version, too
    if hooks.setdefault('finite', dict(type='FiniteHook')) is None:
        del hooks['finite']
    cfg.default_hooks = hooks
    result: Plan = plans[0]
    return result


def _told(error: Exception, cfg: Config) -> Exception:
    """What a user is told of an error."""
    if lost_contact(error):
        return UserError(
            'Another process of this run has ended, or did not answer for '
            f'{timeout_of(cfg):g} seconds (env_cfg.dist_cfg.timeout). '
            'Continue the run with --resume.'
        )
    if isinstance(error, RuntimeError) and 'without overflow' in str(error):
        return UserError(
            'A step of the optimiser is larger than any number: the training '
            'diverged. Try a smaller optim_wrapper.optimizer.lr than '
            f'{cfg.optim_wrapper.optimizer.lr}.'
        )
    if isinstance(error, UserError) or not isinstance(error, OSError):
        return error
    # an error of writing to an open file names none
    place = Path(error.filename or cfg.work_dir).absolute()
    folders = {Path(cfg.work_dir).absolute(), checkpoint_folder(cfg)}
    if error.errno is None or not folders & {place, *place.parents}:
        return error
    gone = isinstance(error, FileNotFoundError | NotADirectoryError)
    reason = 'its folder is gone' if gone else error.strerror
    return WriteError(
        f'Cannot write {str(place)!r}: {reason}. Free or restore its place, '
        'or choose another folder (--work-dir).'
    )


def _what_is_saved(runner: Runner | None) -> str:
    """What a run that was stopped leaves, and how it goes on."""
    last = runner and runner.message_hub.get_info('last_ckpt', None)
    if not runner or not last:
        return 'Nothing is saved yet.'
    config = config_of(runner)
    return (
        f'Saved: {last}; iteration {runner.iter} was reached.\n'
        f'To go on: {shlex.join(["mmhiper", "train", str(config)])} --resume'
    )
