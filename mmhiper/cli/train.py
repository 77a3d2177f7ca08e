"""Run the training that a config describes."""

from __future__ import annotations

import argparse
import os.path as osp

import torch
from mmengine.config import Config

from mmhiper.cli.config_values import merge_options
from mmhiper.cli.options import ConfigOptions, show_options
from mmhiper.cli.photos import photos_of
from mmhiper.engine.launch import train
from mmhiper.engine.share import Share
from mmhiper.many import personalise
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError

EXAMPLE = """\
  mmhiper train configs/hiper/dog.py --work-dir work_dirs/my_dog \\
      --cfg-options train_dataloader.dataset.img=my_dog.jpg"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument(
        'config', help='path of a config, or its name (hiper/dog)'
    )
    parser.add_argument(
        '--work-dir', help='folder of the results (work_dirs/<config name>)'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue a run: from this checkpoint, or from the newest '
        'complete one of the run that was started last in the work dir',
    )
    parser.add_argument(
        '--resume-anyway',
        action='store_true',
        help='likewise, also with another picture, text or model than the '
        'checkpoint was trained with',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (needs CUDA)'
    )
    parser.add_argument('--seed', type=int, help="in place of the config's")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='values in place of those of the config, for instance '
        'model.n_hiper=10 model.source_text="a dog, lying". Lists are in '
        'brackets with their texts in quotes, all else stays as it is; '
        '--debug shows what was understood',
    )
    parser.add_argument(
        '--share',
        metavar='I/N',
        help='of a config with `images_per_step`: only this part of the '
        'images, such as 0/4',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch'],
        default='none',
        help='set by dist_train.sh',
    )
    # Old launchers pass the rank; it is read from the environment.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )


def run(args: argparse.Namespace) -> int:
    """Assemble the config and train."""
    cfg = read_config(args.config)
    if args.cfg_options:
        chosen = merge_options(cfg, args.cfg_options, args.cfg_options_texts)
        if args.debug:
            show_options(chosen)
    if args.seed is not None:
        cfg.merge_from_dict({'randomness.seed': args.seed})
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('work_dirs', name)
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError(
                '--amp needs a CUDA device, but none was found. Leave it out.'
            )
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    resume = args.resume or ('auto' if args.resume_anyway else None)
    if cfg.get('images_per_step') is not None:
        return _train_many(cfg, args.share, resume)
    if args.share is not None:
        raise UserError(
            '--share is of a config with `images_per_step`, whose images are '
            'independent of each other. Leave it out.'
        )
    train(cfg, args.launcher, resume, args.resume_anyway)
    return 0


def _train_many(cfg: Config, share: str | None, resume: str | None) -> int:
    """Learns many images in groups; 1 if one has failed."""
    if resume not in (None, 'auto'):
        raise UserError(
            f'--resume {resume}: a config with `images_per_step` always goes '
            'on behind the images that are done. Leave the path out.'
        )
    photos = photos_of(cfg)
    return int(
        bool(personalise(photos, cfg, cfg.work_dir, share=Share.of(share)))
    )
