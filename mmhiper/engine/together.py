"""Training several images in the same steps, each as if it were alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from mmhiper.engine.fused import with_fused_step
from mmhiper.engine.settings import check_settings
from mmhiper.registry import DATA_SAMPLERS
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


def learn(editor: Any, batches: Iterator[dict[str, Any]], cfg: Config) -> None:
    """Trains an editor with nothing around it: no hooks, no files.

    What it learns is what a run of the config learns.

    Args:
        editor: Changed in place.
        batches: 'inputs', pictures as a dataset has them, and 'data_samples';
            at least as many as there are iterations.
        cfg: Config of the run. Its iterations are those of the editor itself,
            where it knows (``max_iters``, and ``finished`` before that).
    """
    seed = cfg.randomness.seed
    hub = MessageHub.get_current_instance()
    optimizer = build_optim_wrapper(
        editor, with_fused_step(copy.deepcopy(cfg.optim_wrapper))
    )
    editor.train()
    length = cfg.train_cfg.get('max_iters') or editor.max_iters
    for iteration in progress_bar(
        range(length), desc='personalising', dynamic_ncols=True
    ):
        hub.update_info_dict(dict(seed=seed, iter=iteration))
        editor.train_step(next(batches), optimizer)
        if getattr(editor, 'finished', False):
            break
    editor.eval()


def batches_of(dataset: Any, cfg: Config) -> Iterator[dict[str, Any]]:
    """The batches of a run, one after another.

    Args:
        dataset: That of the config.
        cfg: Its ``train_dataloader`` says in which order, with its seed.

    Yields:
        What :func:`learn` takes.
    """
    loader = cfg.train_dataloader
    given = dict(dataset=dataset, seed=cfg.randomness.seed)
    sampler = iter(DATA_SAMPLERS.build(loader.sampler, default_args=given))
    size = loader.get('batch_size') or 1
    while indices := list(itertools.islice(sampler, size)):
        yield pseudo_collate([dataset[index] for index in indices])


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
    learn(editor, itertools.repeat(data), cfg)


def learn_each(
    editor: Any, items: Sequence[Mapping[str, Any]], cfg: Config
) -> list[dict[str, Tensor]]:
    """Trains an editor of K images together, and takes them apart.

    Args:
        editor: Of K images.
        items: What the dataset of each has.
        cfg: See :func:`learn_together`.

    Returns:
        What each has learned, as of an editor of that image alone.
    """
    for image, item in enumerate(items):
        item['data_samples'].set_metainfo(dict(image_index=image))
    learn_together(editor, pseudo_collate(list(items)), cfg)
    return [editor.learned_of(image) for image in range(len(items))]
