"""Personalise photos and edit them by texts, in one go."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmhiper.cli.options import (
    add_guidance,
    add_scheduler,
    guidance_given,
    one_or_all,
    scheduler_given,
)
from mmhiper.cli.photos import are_many, read_photos
from mmhiper.datasets.transforms.geometry import CROPS
from mmhiper.engine.launch import train
from mmhiper.engine.model_card import write_card
from mmhiper.engine.run_lock import run_lock
from mmhiper.engine.share import Share
from mmhiper.engine.sources import sources_of
from mmhiper.inferencer import EditInferencer
from mmhiper.io.modelspec import add_thumbnail
from mmhiper.many import Photo, draw_edits, personalise
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import safe_name
from mmhiper.utils.picture_files import open_picture
from mmhiper.utils.shipped import shipped
from mmhiper.utils.units import plain_size, plain_time

EXAMPLE = """\
  mmhiper edit data/dog.png --source "a standing dog" \\
      --target "a sitting dog" --target "a lying dog" --out-dir out"""

CONFIG = shipped('configs/hiper/dog.py')
IMAGES_PER_STEP = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    photo = parser.add_argument_group('the photos')
    photo.add_argument(
        'photos',
        nargs='+',
        metavar='PHOTO',
        help='an image file; several; a folder of them; or a .csv table with '
        'the columns name, image, prompt (what it shows) and target',
    )
    photo.add_argument(
        '--source',
        action='append',
        metavar='TEXT',
        help='what the photo shows; of several photos one for all, or give '
        'it for each (a text file beside the photo, dog.txt for dog.png)',
    )
    photo.add_argument(
        '--mask',
        metavar='FILE',
        help='an image as large as the photo, white where the subject is: it '
        'alone is learned (of a single photo)',
    )
    photo.add_argument(
        '--crop',
        type=crop_of,
        default='center',
        help='what is learned from: the largest square in the "center"; a box '
        '"x0,y0,x1,y1" in pixels of the upright photo, grown to a square; the '
        '"subject" of the mask with some room; or "none", the whole photo, '
        'with padding that is not learned (center)',
    )
    edits = parser.add_argument_group('the edits')
    edits.add_argument(
        '--target',
        action='append',
        metavar='TEXT',
        help='what to make of it; give it again for more edits (those of a '
        'table)',
    )
    edits.add_argument(
        '--strength',
        type=float,
        nargs='+',
        help='more keeps more of the photo, less follows the text more '
        'freely; several act one after another, from noise to picture',
    )
    add_guidance(edits)
    add_scheduler(edits)
    learning = parser.add_argument_group('the personalisation')
    learning.add_argument('--iters', type=int, help='iterations')
    learning.add_argument('--n-hiper', type=int, help='learned positions N')
    learning.add_argument(
        '--pretrained', help="backbone: hub id, folder, file or 'mini-sd'"
    )
    learning.add_argument('--seed', type=int, help='of all randomness')
    many = parser.add_argument_group('several photos, a folder, a table')
    many.add_argument(
        '--images-per-step',
        type=int,
        default=IMAGES_PER_STEP,
        metavar='N',
        help='how many are learned at the same time, as memory allows; what '
        'each learns does not depend on it (%(default)s)',
    )
    many.add_argument(
        '--share',
        metavar='I/N',
        help='only this part of them, such as 0/4: on each of four machines '
        'another one, with one folder for all',
    )
    parser.add_argument(
        '--out-dir',
        help='folder of the results (work_dirs/edit_<photo>); of several '
        'photos each has a folder in it, and what is done is skipped',
    )


def crop_of(text: str) -> str | tuple[int, ...]:
    """Reads ``--crop``.

    Args:
        text: A word or four numbers, see :class:`SquareCrop`.

    Returns:
        What that class takes.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    if text in CROPS:
        return text
    try:
        return tuple(map(int, text.split(',')))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'wanted {", ".join(CROPS)} or four numbers x0,y0,x1,y1, but got '
            f'{text!r}'
        ) from None


def make_config(args: argparse.Namespace, out_dir: Path) -> Config:
    """The config of dog.py with the options in it.

    Args:
        out_dir: Folder of the results.

    Returns:
        Of the personalisation, of whichever photo.
    """
    cfg = read_config(CONFIG)
    given = {
        'train_dataloader.dataset.mask': args.mask,
        'train_cfg.max_iters': args.iters,
        'model.n_hiper': args.n_hiper,
        'model.strength': one_or_all(args.strength),
        'model.sd.pretrained': args.pretrained,
        'randomness.seed': args.seed,
    }
    cfg.merge_from_dict({key: v for key, v in given.items() if v is not None})
    cfg.work_dir = str(out_dir)
    if args.pretrained:
        cfg.model.sd.without_cuda = None
    if args.mask:  # or nothing holds what is around the subject
        cfg.model.hold_outside = 1.0
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == 'SquareCrop':
            transform.crop = args.crop
    cfg.default_hooks.logger = None
    # A progress bar and one sheet at the end, in place of log lines and
    # previews on the way.
    cfg.custom_hooks = [
        dict(type='PlainCheckpointHook'),
        dict(type='ExportHook'),
        dict(type='ProgressBarHook', description='personalising'),
    ]
    return cfg


def run(args: argparse.Namespace) -> int:
    """Train on each photo, draw all targets, put them on a sheet each."""
    drawing = drawing_given(args)  # a mistake should not cost a training
    photos = read_photos(args)
    register_all_modules()
    if are_many(args):
        return edit_many(photos, args, drawing)
    if args.share is not None:
        raise UserError(
            '--share is of several photos, but there is one. Leave it out.'
        )
    (photo,) = photos
    out_dir = Path(args.out_dir or _default_folder(photo.name))
    check_writable(out_dir)
    with run_lock(out_dir):  # the drawing too, which comes after the run
        edit(photo, args, drawing, out_dir)
    return 0


def drawing_given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the drawing that a command line has.

    Returns:
        For :class:`EditInferencer`.

    Raises:
        ValueError: If one is wrong.
    """
    drawing = guidance_given(args) | scheduler_given(args)
    if args.seed is not None:
        drawing['seed'] = args.seed
    return drawing


def _default_folder(name: str) -> str:
    """Where results go that were given no folder."""
    return f'work_dirs/{safe_name(f"edit_{name}")}'


def edit_many(
    photos: list[Photo], args: argparse.Namespace, drawing: dict[str, Any]
) -> int:
    """Personalises several photos and edits them.

    Args:
        photos: The photos.
        drawing: See :func:`drawing_given`.

    Returns:
        1 if one has failed.
    """
    if args.mask:
        raise UserError(
            '--mask is of one photo, but there may be more. Edit them one '
            'after another.'
        )
    named = 'photos' if len(args.photos) > 1 else Path(args.photos[0]).stem
    out_dir = Path(args.out_dir or _default_folder(named))
    cfg = make_config(args, out_dir)
    cfg.images_per_step = args.images_per_step
    share = Share.of(args.share)
    return int(bool(personalise(photos, cfg, out_dir, drawing, share)))


def edit(
    photo: Photo,
    args: argparse.Namespace,
    drawing: dict[str, Any],
    out_dir: Path,
) -> None:
    """Personalises one photo and edits it.

    Args:
        photo: The photo.
        drawing: See :func:`drawing_given`.
        out_dir: Folder of the results, which no other run has.
    """
    start = time.monotonic()
    cfg = make_config(args, out_dir)
    cfg.train_dataloader.dataset.img = photo.path
    cfg.model.source_text = photo.source
    cfg.model.target_text = photo.targets[0]
    runner = train(cfg)
    checkpoint = runner.message_hub.get_info('last_ckpt')
    panels = sources_of(
        runner.train_dataloader.dataset, runner.model.data_preprocessor
    ).panels
    inferencer = EditInferencer(runner.model, checkpoint)
    sheet = draw_edits(inferencer, panels[0], photo, out_dir, drawing)
    with open_picture(out_dir / '002.png') as picture:  # the first edit
        add_thumbnail(Path(checkpoint).with_suffix('.safetensors'), picture)
    write_card(out_dir, checkpoint)  # again, with the sheet
    more = ['mmhiper', 'infer', checkpoint, '--prompt', 'YOUR TEXT']
    print(
        f'Result sheet  {sheet}\n'
        f'Pictures      {out_dir}/000.png (source), 001.png '
        f'(reconstruction), 002.png ...\n'
        f'Checkpoint    {checkpoint} '
        f'({plain_size(Path(checkpoint).stat().st_size)})\n'
        f'Time          {plain_time(time.monotonic() - start)}\n'
        f'More edits    {shlex.join(more)}'
    )
