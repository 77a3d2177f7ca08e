"""Personalise and edit many photos on a cluster, by Ray Data.

    python tools/ray_edit.py TABLE.csv --out-dir FOLDER --workers 8

Needs `pip install "ray[data]"`. Machines that joined the cluster (`ray start`)
see the photos and the folder of the results under the same paths. A worker
holds one frozen model and takes a group of photos at a time. One that dies is
replaced and its group learned again, to the same result. What is done is
skipped, whichever way it was made; results are those of `mmhiper train
configs/hiper/folder.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
import ray
import torch

from mmhiper.cli.config_values import merge_options
from mmhiper.cli.errors import user_errors
from mmhiper.cli.options import ConfigOptions
from mmhiper.cli.photos import photos_of
from mmhiper.many import Personaliser, Photo, close
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config


class Worker:
    """A frozen model on one machine, which Ray starts once."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.personaliser = Personaliser(**settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Learns and edits a group; the results lie in its folders."""
        values = [json.loads(text) for text in batch['photo']]
        photos = [Photo(**{**v, 'targets': (*v['targets'],)}) for v in values]
        # a worker that died may have finished a part
        waiting = [p for p in photos if not self.personaliser.is_done(p)]
        if waiting:
            self.personaliser(waiting)
        return {'name': np.array([photo.name for photo in photos])}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('photos', nargs='+', help='a table, folder or files')
    parser.add_argument('--out-dir', required=True)
    parser.add_argument('--config', default='hiper/folder')
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE'
    )
    return parser.parse_args()


def main() -> int:
    """Share out the photos; 1 if one has failed."""
    args = parse_args()
    cfg = read_config(args.config)
    if args.cfg_options:
        merge_options(cfg, args.cfg_options, args.cfg_options_texts)
    cfg.photos = args.photos
    photos = photos_of(cfg)
    check_writable(args.out_dir)
    settings = dict(cfg=cfg, out_dir=args.out_dir)
    here = Personaliser(**settings)
    waiting = [
        {'photo': json.dumps(asdict(photo))}
        for photo in photos
        if not here.is_done(photo)
    ]
    if waiting:
        groups = -(-len(waiting) // cfg.images_per_step)
        ray.data.from_items(waiting, override_num_blocks=groups).map_batches(
            Worker,
            fn_constructor_args=[settings],
            batch_size=cfg.images_per_step,
            concurrency=min(args.workers, groups),
            num_gpus=int(torch.cuda.is_available()),
        ).materialize()
    return int(bool(close(photos, here)))


if __name__ == '__main__':
    with user_errors():
        sys.exit(main())
