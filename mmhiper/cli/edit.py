"""Personalise a photo and edit it by texts, in one go."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmhiper.cli.options import add_guidance, guidance_given
from mmhiper.datasets.transforms.geometry import CROPS
from mmhiper.engine.launch import train
from mmhiper.engine.run_lock import run_lock
from mmhiper.engine.sources import sources_of
from mmhiper.inferencer import EditInferencer
from mmhiper.io import PictureFolder, write_picture
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config
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
    photo = parser.add_argument_group('the photo')
    photo.add_argument('photo', help='an image file')
    photo.add_argument(
        '--source', required=True, metavar='TEXT', help='what the photo shows'
    )
    photo.add_argument(
        '--mask',
        metavar='FILE',
        help='an image as large as the photo, white where the subject is: it '
        'alone is learned',
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
        required=True,
        metavar='TEXT',
        help='what to make of it; give it again for more edits',
    )
    edits.add_argument(
        '--strength',
        type=float,
        help='more keeps more of the photo, less follows the text more freely',
    )
    add_guidance(edits)
    learning = parser.add_argument_group('the personalisation')
    learning.add_argument('--iters', type=int, help='iterations')
    learning.add_argument('--n-hiper', type=int, help='learned positions N')
    learning.add_argument(
        '--pretrained', help="backbone: hub id, folder, file or 'mini-sd'"
    )
    learning.add_argument('--seed', type=int, help='of all randomness')
    parser.add_argument(
        '--out-dir', help='folder of the results (work_dirs/edit_<photo>)'
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
        Of the personalisation.
    """
    cfg = read_config(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(out_dir),
            'train_dataloader.dataset.img': args.photo,
            'train_dataloader.dataset.mask': args.mask,
            'model.source_text': args.source,
            'model.target_text': args.target[0],
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
    """Train, draw all targets, put them on one sheet."""
    name = safe_name(f'edit_{Path(args.photo).stem}')
    out_dir = Path(args.out_dir or f'work_dirs/{name}')
    check_writable(out_dir)
    with run_lock(out_dir):  # the drawing too, which comes after the run
        edit(args, out_dir)


def edit(args: argparse.Namespace, out_dir: Path) -> None:
    """See :func:`run`.

    Args:
        out_dir: Folder of the results, which no other run has.
    """
    start = time.monotonic()
    guidance = guidance_given(args)  # a mistake should not cost a training
    runner = train(make_config(args, out_dir))
    checkpoint = runner.message_hub.get_info('last_ckpt')
    sheet = out_dir / 'sheet.png'
    panels = draw(runner, checkpoint, args, out_dir)
    rows = [
        panels[first : first + COLUMNS]
        for first in range(0, len(panels), COLUMNS)
    ]
    write_picture(
        sheet,
        draw_sheet(rows),
        dict(
            source=args.source,
            targets=args.target,
            **runner.model.guidance_of(**guidance).plain(),
        ),
    )
    print(
        f'Result sheet  {sheet}\n'
        f'Pictures      {out_dir}/000.png (source), 001.png '
        f'(reconstruction), 002.png ...\n'
        f'Checkpoint    {checkpoint} '
        f'({plain_size(Path(checkpoint).stat().st_size)})\n'
        f'Time          {plain_time(time.monotonic() - start)}'
    )


def draw(
    runner: Runner, checkpoint: str, args: argparse.Namespace, out_dir: Path
) -> list[Panel]:
    """Draws the reconstruction and the edits, and saves each at once.

    Args:
        runner: Of the personalisation.
        checkpoint: Its last one.
        out_dir: Folder of the results.

    Returns:
        Captions and pictures, the source first.

    Raises:
        KeyboardInterrupt: At Ctrl-C; it says what is saved.
    """
    inferencer = EditInferencer(runner.model, checkpoint)
    common = guidance_given(args)
    if args.seed is not None:
        common['seed'] = args.seed
    # The reconstruction shows what was learned: whole strength, own text.
    edits: list[tuple[str, str, dict[str, Any]]]
    edits = [('reconstruction', args.source, {'strength': 1.0})]
    edits += [(target, target, {}) for target in args.target]
    panels = sources_of(
        runner.train_dataloader.dataset, runner.model.data_preprocessor
    ).panels
    folder = PictureFolder(out_dir, len(edits) + 1)
    folder.add(panels[0][1], dict(photo=Path(args.photo).name))
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
