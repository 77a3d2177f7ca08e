"""Personalise photos and edit them by texts, in one go."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmhiper.cli.options import (
    add_guidance,
    add_scheduler,
    guidance_given,
    scheduler_given,
)
from mmhiper.cli.photos import Photo, read_photos
from mmhiper.datasets.transforms.geometry import CROPS
from mmhiper.engine.launch import train
from mmhiper.engine.run_lock import run_lock
from mmhiper.engine.sources import sources_of
from mmhiper.inferencer import EditInferencer
from mmhiper.io import PictureFolder, write_picture
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import safe_name
from mmhiper.utils.progress import progress_bar
from mmhiper.utils.sheet import Panel, draw_sheet
from mmhiper.utils.shipped import shipped
from mmhiper.utils.units import plain_size, plain_time

EXAMPLE = """\
  mmhiper edit data/dog.png --source "a standing dog" \\
      --target "a sitting dog" --target "a lying dog" --out-dir out"""

CONFIG = shipped('configs/hiper/dog.py')
COLUMNS = 4


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
        help='more keeps more of the photo, less follows the text more freely',
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
    parser.add_argument(
        '--out-dir',
        help='folder of the results (work_dirs/edit_<photo>); of several '
        'photos each has a folder in it',
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


def make_config(
    photo: Photo, args: argparse.Namespace, out_dir: Path
) -> Config:
    """The config of dog.py with the options in it.

    Args:
        photo: What to learn from.
        out_dir: Folder of the results.

    Returns:
        Of the personalisation.
    """
    cfg = read_config(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(out_dir),
            'train_dataloader.dataset.img': photo.path,
            'train_dataloader.dataset.mask': args.mask,
            'model.source_text': photo.source,
            'model.target_text': photo.targets[0],
        }
    )
    given = {
        'train_cfg.max_iters': args.iters,
        'model.n_hiper': args.n_hiper,
        'model.strength': args.strength,
        'model.sd.pretrained': args.pretrained,
        'randomness.seed': args.seed,
    }
    cfg.merge_from_dict({key: v for key, v in given.items() if v is not None})
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


def run(args: argparse.Namespace) -> None:
    """Train on each photo, draw all targets, put them on one sheet."""
    guidance_given(args)  # a mistake should not cost a training
    scheduler_given(args)
    photos = read_photos(args)
    if args.mask and len(photos) > 1:
        raise UserError(
            f'--mask is of one photo, but there are {len(photos)}. Edit them '
            'one after another.'
        )
    folders = [_folder_of(photo, args, len(photos)) for photo in photos]
    register_all_modules()
    for photo, out_dir in zip(photos, folders, strict=True):
        check_writable(out_dir)
        if len(photos) > 1:  # the last one's mistake, too
            data = make_config(photo, args, out_dir).train_dataloader.dataset
            DATASETS.build(data)
    for number, (photo, out_dir) in enumerate(
        zip(photos, folders, strict=True), 1
    ):
        if len(photos) > 1:
            print(f'Photo {number} of {len(photos)}  {photo.path}')
        with run_lock(out_dir):  # the drawing too, which comes after the run
            edit(photo, args, out_dir)


def _folder_of(photo: Photo, args: argparse.Namespace, count: int) -> Path:
    """Where the results of a photo go."""
    if count > 1 and args.out_dir:
        return Path(args.out_dir, photo.name)
    return Path(args.out_dir or f'work_dirs/{safe_name(f"edit_{photo.name}")}')


def edit(photo: Photo, args: argparse.Namespace, out_dir: Path) -> None:
    """Personalises one photo and edits it.

    Args:
        photo: The photo.
        out_dir: Folder of the results, which no other run has.
    """
    start = time.monotonic()
    guidance = guidance_given(args)
    runner = train(make_config(photo, args, out_dir))
    checkpoint = runner.message_hub.get_info('last_ckpt')
    sheet = out_dir / 'sheet.png'
    panels = draw(runner, checkpoint, photo, args, out_dir)
    rows = [
        panels[first : first + COLUMNS]
        for first in range(0, len(panels), COLUMNS)
    ]
    write_picture(
        sheet,
        draw_sheet(rows),
        dict(
            source=photo.source,
            targets=list(photo.targets),
            **runner.model.guidance_of(**guidance).plain(),
        ),
    )
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


def draw(
    runner: Runner,
    checkpoint: str,
    photo: Photo,
    args: argparse.Namespace,
    out_dir: Path,
) -> list[Panel]:
    """Draws the reconstruction and the edits, and saves each at once.

    Args:
        runner: Of the personalisation.
        checkpoint: Its last one.
        photo: What it has learned from.
        out_dir: Folder of the results.

    Returns:
        Captions and pictures, the source first.

    Raises:
        KeyboardInterrupt: At Ctrl-C; it says what is saved.
    """
    inferencer = EditInferencer(runner.model, checkpoint)
    common = guidance_given(args) | scheduler_given(args)
    if args.seed is not None:
        common['seed'] = args.seed
    # The reconstruction shows what was learned: whole strength, own text.
    edits: list[tuple[str, str, dict[str, Any]]]
    edits = [('reconstruction', photo.source, {'strength': 1.0})]
    edits += [(target, target, {}) for target in photo.targets]
    panels = sources_of(
        runner.train_dataloader.dataset, runner.model.data_preprocessor
    ).panels
    folder = PictureFolder(out_dir, len(edits) + 1)
    folder.add(panels[0][1], dict(photo=Path(photo.path).name))
    try:
        for caption, prompt, options in progress_bar(
            edits, desc='drawing', unit='picture', dynamic_ncols=True
        ):
            result = inferencer(
                prompt, show_progress=False, **common, **options
            )
            panels.append((caption, result['samples'][0]))
            folder.add(panels[-1][1], result['records'][0])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f'Saved: {checkpoint}, and {len(panels)} of {len(edits) + 1} '
            f'pictures in {out_dir}.'
        ) from None
    return panels
