"""Training several images in the same steps, each as if it were alone."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper

from mmhiper.engine.fused import with_fused_step
from mmhiper.engine.settings import check_settings
from mmhiper.utils.errors import UserError
from mmhiper.utils.progress import progress_bar


def check_together(cfg: Config) -> None:
    """Refuses settings by which images of one step would touch each other.

    Args:
        cfg: Config of the run; all its images have the same.

    Raises:
        ValueError: If a norm is taken over all of them, a schedule is to be
            followed, there is no length or no seed; or see
            :func:`check_settings`.
    """
    check_settings(cfg)
    if cfg.optim_wrapper.get('clip_grad'):
        raise UserError(
            '`optim_wrapper.clip_grad` takes the norm of all images of a step '
            'together, so what one learns would depend on the others. Leave '
            'it out where there is `images_per_step`.'
        )
    if cfg.get('param_scheduler'):
        raise UserError(
            '`param_scheduler` must be empty where there is '
            '`images_per_step`: the learning rate is constant.'
        )
    if cfg.train_cfg.get('max_iters') is None:
        raise UserError('`train_cfg.max_iters` must say how many iterations.')
    if (cfg.get('randomness') or {}).get('seed') is None:
        raise UserError(
            '`randomness.seed` must be given where there is '
            '`images_per_step`: a later start goes on with the same noise.'
        )


def learn_together(editor: Any, data: dict[str, Any], cfg: Config) -> None:
    """Trains an editor of K images, all of them in each step.

    The loss is a sum over images, their rows of the embedding are independent,
    and Adam works number by number: so each image has its own gradient and
    its own moments. None is ever left out of a step, where momentum would move
    it all the same.

    Args:
        editor: Of K images.
        data: 'inputs', K pictures as a dataset has them, and 'data_samples'.
        cfg: Config of the run, see :func:`check_together`.
    """
    seed = cfg.randomness.seed
    hub = MessageHub.get_current_instance()
    optimizer = build_optim_wrapper(
        editor, with_fused_step(copy.deepcopy(cfg.optim_wrapper))
    )
    editor.train()
    for iteration in progress_bar(
        range(cfg.train_cfg.max_iters),
        desc='personalising',
        dynamic_ncols=True,
    ):
        hub.update_info_dict(dict(seed=seed, iter=iteration))
        editor.train_step(data, optimizer)
    editor.eval()
