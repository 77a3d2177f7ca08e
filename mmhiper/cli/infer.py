"""Draw pictures from texts with a trained editor."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from mmhiper.apis import load_editor
from mmhiper.engine.launch import check_writable
from mmhiper.models import EmbeddingEditor, TextualInversion
from mmhiper.utils.sheet import draw_sheet

EXAMPLE = '''\
  mmhiper infer configs/hiper/dog.py work_dirs/dog/iter_1200.pth \\
      --prompt "a sitting dog"'''

GRID_COLUMNS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('config', help='the config it was trained with')
    parser.add_argument(
        'checkpoint', help='iter_N.pth, or the iter_N.safetensors beside it'
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
        '--seed',
        type=int,
        default=111111,
        help='of the first picture, the next ones count on (111111)',
    )
    parser.add_argument(
        '--strength',
        type=float,
        help='weight of the personalisation; more keeps more of the source, '
        "less follows the text more freely (the config's)",
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
        '--out-dir', help='folder of the pictures (infer/ by the checkpoint)'
    )


def load_words(editor: EmbeddingEditor, paths: list[str]) -> None:
    """Add the words of embedding files to an editor that has words."""
    if not isinstance(editor, TextualInversion):
        raise ValueError(
            '--embedding needs an editor whose texts have learned words in '
            f'them, TextualInversion, but this is {type(editor).__name__}.'
        )
    print(f'Words: {", ".join(editor.load_embeddings(paths))}')


def run(args: argparse.Namespace) -> None:
    """Draw, save each picture as soon as it is done, then the grid."""
    if args.num_images is not None and args.num_images < 1:
        raise ValueError(
            f'--num-images must be at least 1, but got {args.num_images}.'
        )
    out_dir = Path(args.out_dir or Path(args.checkpoint).parent / 'infer')
    check_writable(out_dir)
    editor = load_editor(args.config, args.checkpoint)
    options = {} if args.strength is None else {'strength': args.strength}
    if args.embedding:
        load_words(editor, args.embedding)

    rows: list[list] = []
    count = args.num_images or (1 if editor.deterministic else 10)
    total = len(args.prompt) * count
    digits = max(3, len(str(total - 1)))  # names that sort
    with tqdm(total=total, desc='drawing', unit='picture') as bar:
        for prompt in args.prompt:
            for number in range(count):
                # One seed per picture: number 3 is the same picture
                # however many are drawn.
                image = editor.infer(
                    prompt,
                    seed=args.seed + number,
                    show_progress=False,
                    **options,
                )['samples'][0]
                image.save(out_dir / f'{bar.n:0{digits}d}.png')
                if number % GRID_COLUMNS == 0:
                    rows.append([])
                rows[-1].append((prompt, image))
                bar.update()
    draw_sheet(rows).save(out_dir / 'grid.png')
    print(f'{total} picture(s) and grid.png in {out_dir}')
