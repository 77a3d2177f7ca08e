"""Draw pictures from texts with a trained editor."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from PIL import Image

from mmhiper.apis import find_run
from mmhiper.cli.options import (
    ConfigOptions,
    add_guidance,
    add_scheduler,
    guidance_given,
    one_or_all,
    scheduler_given,
)
from mmhiper.inferencer import EditInferencer
from mmhiper.io import write_picture
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.errors import UserError
from mmhiper.utils.sheet import draw_sheet
from mmhiper.utils.units import plain_time

EXAMPLE = '''\
  mmhiper infer work_dirs/dog/iter_1200.pth --prompt "a sitting dog"'''

GRID_COLUMNS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument(
        'config',
        help='a checkpoint or export, which says how it was made; the '
        'work_dir of a training, or the name of an editor (HiPer), for the '
        'same; or a config. A Python config is code, and is run: name one '
        'only if you trust who made it',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='iter_N.pth, or the iter_N.safetensors beside it (the newest of '
        'the work_dir)',
    )
    parser.add_argument(
        '--backbone',
        metavar='MODEL',
        help='hub id, folder or file of the frozen model, where it is not '
        'what the checkpoint or the config names',
    )
    parser.add_argument(
        '--prompt',
        nargs='+',
        action='extend',
        required=True,
        metavar='TEXT',
        help='one or more texts, each in quotes',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        help='per text (10; 1 for editors that draw nothing at random)',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='pictures drawn at the same time; more need more memory (1)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=111111,
        help='of the first picture, the next ones count on (111111)',
    )
    parser.add_argument(
        '--strength',
        type=float,
        nargs='+',
        help='weight of the personalisation; more keeps more of the source, '
        'less follows the text more freely; several act one after another, '
        "from noise to picture (the config's)",
    )
    parser.add_argument(
        '--image',
        dest='picture',
        metavar='FILE',
        help='a picture to begin with, in place of noise; its largest centred '
        'part is drawn from',
    )
    parser.add_argument(
        '--mask',
        metavar='FILE',
        help='an image as large as that picture, white where it may change; '
        'the rest stays',
    )
    parser.add_argument(
        '--denoise',
        type=float,
        metavar='SHARE',
        help='in (0, 1]; how much of the picture is drawn anew (0.8)',
    )
    add_guidance(parser)
    add_scheduler(parser)
    parser.add_argument(
        '--options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help='what else the `infer` of this editor takes, such as '
        'num_inference_steps=20, image=3 of a file with many, or '
        'stages=[0,3]',
    )
    parser.add_argument(
        '--embedding',
        nargs='+',
        default=[],
        metavar='FILE',
        help='words learned elsewhere, to be used in the texts (Textual '
        'Inversion; diffusers, A1111, kohya and other formats)',
    )
    parser.add_argument(
        '--rename',
        nargs='+',
        action='extend',
        default=[],
        metavar='OLD=NEW',
        help='call a word of an embedding file something else, where its own '
        'name is a common word, has blanks or is taken',
    )
    parser.add_argument(
        '--out-dir', help='folder of the pictures (infer/ by the checkpoint)'
    )


def run(args: argparse.Namespace) -> None:
    """Draw, save each picture as soon as it is done, then the grid."""
    if args.num_images is not None and args.num_images < 1:
        raise UserError(
            f'--num-images must be at least 1, but got {args.num_images}.'
        )
    _check_options(args)
    options = args.options | guidance_given(args) | scheduler_given(args)
    started = dict(image=args.picture, mask=args.mask, denoise=args.denoise)
    options |= {
        name: each for name, each in started.items() if each is not None
    }
    source, checkpoint = find_run(args.config, args.checkpoint)
    if checkpoint is None:
        raise UserError(
            f'Wanted what an editor has learned, but {args.config!r} is a '
            'config alone. Name a checkpoint behind it, or give the work_dir '
            'of a run in its place.'
        )
    out_dir = Path(args.out_dir or checkpoint.parent / 'infer')
    check_writable(out_dir)
    inferencer = EditInferencer(
        source,
        checkpoint,
        embeddings=args.embedding,
        backbone=args.backbone,
        rename=names_of(args.rename),
    )
    if inferencer.words:
        print(f'Words: {", ".join(inferencer.words)}')
    once = inferencer.editor.deterministic
    if args.strength is not None:
        options['strength'] = one_or_all(args.strength)
    start = time.monotonic()
    result = inferencer(
        args.prompt,
        num_images=args.num_images or (1 if once else 10),
        batch_size=args.batch_size,
        seed=args.seed,
        out_dir=out_dir,
        **options,
    )
    write_picture(
        out_dir / 'grid.png',
        draw_grid(result, len(args.prompt)),
        dict(result['records'][0], prompt='; '.join(args.prompt)),
    )
    print(
        f'{len(result["files"])} picture(s) and grid.png in {out_dir}, drawn '
        f'in {plain_time(time.monotonic() - start)}'
    )


def _check_options(args: argparse.Namespace) -> None:
    """Refuses what the command says in another way, or not at all."""
    if args.picture is not None and 'image' in args.options:
        raise UserError(
            'With --image FILE, which image of a file with many is meant is '
            '`index=3` of --options.'
        )
    for name in args.options:
        if name in vars(args):
            flag = name.replace('_', '-')
            raise UserError(f'`{name}` has an option of its own: --{flag}.')
        if name in ('prompts', 'return_type', 'show_progress'):
            raise UserError(f'`{name}` is no option of this command.')


def names_of(renames: list[str]) -> dict[str, str]:
    """Reads ``--rename``.

    Args:
        renames: ``OLD=NEW`` each.

    Returns:
        New by old.

    Raises:
        ValueError: If one is none of these.
    """
    names = {}
    for text in renames:
        old, _, new = (part.strip() for part in text.rpartition('='))
        if not old or not new:
            raise UserError(
                f'--rename must be OLD=NEW, the word of a file and what to '
                f'call it, but got {text!r}.'
            )
        names[old] = new
    return names


def draw_grid(result: dict[str, Any], num_prompts: int) -> Image.Image:
    """All pictures on one sheet; each prompt begins a row."""
    panels = [
        (record['prompt'], image)
        for record, image in zip(
            result['records'], result['samples'], strict=True
        )
    ]
    each = len(panels) // num_prompts
    rows = [
        panels[first + start : first + min(start + GRID_COLUMNS, each)]
        for first in range(0, len(panels), each)
        for start in range(0, each, GRID_COLUMNS)
    ]
    return draw_sheet(rows)
