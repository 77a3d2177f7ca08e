"""Personalise a photo and edit it by texts, in one go."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config
from PIL import Image
from tqdm import tqdm

from mmhiper.engine.launch import train
from mmhiper.utils.sheet import draw_sheet
from mmhiper.utils.shipped import shipped

EXAMPLE = '''\
  mmhiper edit data/dog.png --source "a standing dog" \\
      --target "a sitting dog" --target "a dog on the beach"'''

CONFIG = shipped('configs/hiper/dog.py')
COLUMNS = 4
SOURCE_SIZE = 512  # pixels of the source on the sheet, at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('photo', help='an image file')
    parser.add_argument(
        '--source', required=True, metavar='TEXT', help='what the photo shows'
    )
    parser.add_argument(
        '--target',
        action='append',
        required=True,
        metavar='TEXT',
        help='what to make of it; give it again for more edits',
    )
    parser.add_argument(
        '--out-dir', help='folder of the results (work_dirs/edit_<photo>)'
    )
    parser.add_argument('--iters', type=int, help='of the personalisation')
    parser.add_argument('--n-hiper', type=int, help='learned positions N')
    parser.add_argument(
        '--strength',
        type=float,
        help='more keeps more of the photo, less follows the text more freely',
    )
    parser.add_argument(
        '--pretrained', help="backbone: hub id, folder, file or 'mini-sd'"
    )
    parser.add_argument('--seed', type=int, help='of all randomness')


def make_config(args: argparse.Namespace, out_dir: Path) -> Config:
    """Turn the options into a config: those of dog.py, and what is given."""
    cfg = Config.fromfile(CONFIG)
    options = {
        'work_dir': str(out_dir),
        'train_dataloader.dataset.img': args.photo,
        'model.source_text': args.source,
        'model.target_text': args.target[0],
    }
    given = {
        'train_cfg.max_iters': args.iters,
        'model.n_hiper': args.n_hiper,
        'model.strength': args.strength,
        'randomness.seed': args.seed,
    }
    options |= {key: val for key, val in given.items() if val is not None}
    if args.pretrained:
        options['model.sd.pretrained'] = args.pretrained
        options['model.sd.without_cuda'] = None
    cfg.merge_from_dict(options)
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
    out_dir = Path(args.out_dir or f'work_dirs/edit_{Path(args.photo).stem}')
    runner = train(make_config(args, out_dir))
    editor = runner.model
    seed = {} if args.seed is None else {'seed': args.seed}

    # (3, H, W) uint8, upright and cropped
    pixels = runner.train_dataloader.dataset[0]['inputs']
    source = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    source.thumbnail((SOURCE_SIZE, SOURCE_SIZE))
    panels = [('source', source)]
    # The reconstruction shows what was learned: whole strength, own text.
    edits = [('reconstruction', args.source, {'strength': 1.0})]
    edits += [(target, target, {}) for target in args.target]
    for caption, prompt, options in tqdm(edits, 'drawing', dynamic_ncols=True):
        image = editor.infer(prompt, show_progress=False, **seed, **options)[
            'samples'
        ][0]
        panels.append((caption, image))
    for number, (_, image) in enumerate(panels):
        image.save(out_dir / f'{number:03d}.png')
    rows = [
        panels[start : start + COLUMNS]
        for start in range(0, len(panels), COLUMNS)
    ]
    draw_sheet(rows).save(out_dir / 'sheet.png')
    print(
        f'Result sheet  {out_dir / "sheet.png"}\n'
        f'Pictures      {out_dir}/000.png (source), 001.png '
        f'(reconstruction), 002.png ...\n'
        f'Checkpoint    {runner.message_hub.get_info("last_ckpt")}'
    )
