"""Several processes: their backend, their launcher, their silence."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from mmhiper.interruption import watch_launcher
from mmhiper.utils.errors import UserError

# Seconds without an answer. Others wait while the first one draws a preview.
TIMEOUT = 1800


def set_up_processes(cfg: Config, launcher: str) -> None:
    """Choose the backend of a run with several processes.

    With CUDA devices mmengine's own set-up (nccl, one device per process)
    serves. Without, mmengine would still call ``torch.cuda.set_device``; so
    the gloo group is initialised here, which mmengine then takes over. A
    single process needs no group and no wrapper at all.

    Args:
        cfg: Config of the run, changed in place.
        launcher: ``'none'``, or ``'pytorch'`` when started by
            ``torch.distributed.run``.

    Raises:
        ValueError: If a machine has CUDA devices, but fewer than processes;
            or the timeout is no number of seconds.
    """
    watch_launcher()
    if launcher == 'none' or int(os.environ.get('WORLD_SIZE', 1)) == 1:
        cfg.launcher = 'none'
        return
    cfg.launcher = launcher
    seconds = timeout_of(cfg)
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
        if not is_distributed():
            init_dist(launcher, **cfg.env_cfg.dist_cfg)
    else:
        cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
        wrapper['device_ids'] = None
        if not is_distributed():
            distributed.init_process_group(
                'gloo', timeout=timedelta(seconds=seconds)
            )
    cfg.model_wrapper_cfg = wrapper


def timeout_of(cfg: Config) -> float:
    """How long a process waits for an answer of another.

    Args:
        cfg: Config of the run; gets the default where it has none.

    Returns:
        Seconds.

    Raises:
        ValueError: If it is not more than 0.
    """
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    seconds = TIMEOUT if seconds is None else seconds
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise UserError(
            '`env_cfg.dist_cfg.timeout` must be a number of seconds more '
            f'than 0, but got {seconds!r}.'
        )
    cfg.merge_from_dict({'env_cfg.dist_cfg.timeout': seconds})
    return float(seconds)


def lost_contact(error: BaseException) -> bool:
    """Whether an error says that another process ended or does not answer.

    Args:
        error: Of a training step.

    Returns:
        True for what gloo, nccl and their store raise then.
    """
    return is_distributed() and (
        isinstance(error, distributed.DistError)
        or (isinstance(error, RuntimeError) and 'gloo' in str(error))
    )
