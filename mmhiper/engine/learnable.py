"""What a training cannot learn from, said before it starts."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmhiper.utils.errors import UserError

MOST_LOOKED_AT = 1000  # pictures of a dataset


def check_learnable(cfg: Config, dataset: Any, editor: Any) -> None:
    """Refuses a training from which nothing can come, before it starts.

    Says too where a batch costs more than it brings.

    Args:
        cfg: Config of the run.
        dataset: Its pictures.
        editor: What is to be trained.

    Raises:
        ValueError: If a mask leaves nothing of a picture, all pictures of a
            subject are the same one, or the editor has its own reason, see
            :meth:`Editor.check_learnable`.
    """
    count = min(len(dataset), MOST_LOOKED_AT)
    items = [dataset[index] for index in range(count)]
    samples: list[BaseDataElement] = [each['data_samples'] for each in items]
    pictures: list[Tensor] = [each['inputs'] for each in items]
    for sample in samples:
        _check_mask(sample, editor.data_preprocessor.size)
    editor.check_learnable(samples)
    length = cfg.train_cfg.get('max_iters')
    if length is not None:
        editor.check_length(length)
    _check_different(pictures, samples, editor)
    _tell_batch(cfg, len(dataset))


def _check_mask(sample: BaseDataElement, size: int | None) -> None:
    """Refuses a mask of which crop or model size leaves nothing."""
    mask = sample.get('mask')
    if mask is None:
        return
    seen = float(mask.float().mean()) / 255 * (size or len(mask)) ** 2
    if seen < 1:
        raise UserError(
            f'The mask of {sample.get("img_path", "a picture")!r} leaves '
            'nothing to learn: of what the crop keeps of the picture, less '
            'than one pixel that the model sees is white. Crop around the '
            "subject (crop='subject' or a box), or paint it white in the mask."
        )


def _check_different(
    pictures: list[Tensor], samples: list[BaseDataElement], editor: Any
) -> None:
    """Refuses several pictures of a subject that are all the same one."""
    of_subject: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        of_subject[editor.subject_of(sample)].append(index)
    for subject, (first, *others) in of_subject.items():
        if others and all(
            torch.equal(pictures[first], pictures[other])
            and _same_mask(samples[first], samples[other])
            for other in others
        ):
            paths = [samples[i].get('img_path', '') for i in (first, *others)]
            names = ', '.join(dict.fromkeys(paths))
            raise UserError(
                f'All {len(paths)} pictures of {subject or "the subject"!r} '
                f'are the same one ({names:.200}): nothing tells what is the '
                'subject from what is this picture. Take different ones, or '
                'name it once.'
            )


def _same_mask(one: BaseDataElement, other: BaseDataElement) -> bool:
    """Whether two pictures have one mask, or none."""
    first, second = one.get('mask'), other.get('mask')
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _tell_batch(cfg: Config, count: int) -> None:
    """Says where a batch has more rows than there are pictures."""
    # Noise and timestep depend on seed, picture and iteration alone, so a
    # picture that is twice in a step is the same work twice.
    rows = cfg.train_dataloader.get('batch_size') or 1
    processes = get_world_size()
    if rows * processes > count:
        each = f' in each of {processes} processes' if processes > 1 else ''
        print_log(
            f'A step has {rows} row(s){each} (`train_dataloader.batch_size`) '
            f'for {count} picture(s): the same picture has the same noise in '
            f'all rows of a step, so this costs {rows * processes / count:g} '
            f'times as much and learns no more. Take {count}'
            f'{" and one process" if processes > 1 else ""}.',
            logger='current',
            level=logging.INFO,
        )
