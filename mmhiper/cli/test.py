"""Report whether an editor has learned its pictures, and follows its texts.

Metrics that the config names as ``test_metrics`` are asked too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from mmhiper.apis import load_editor
from mmhiper.cli.options import add_guidance, guidance_given
from mmhiper.evaluation import ClipFeatures, compare_with_plain
from mmhiper.evaluation.learned import draw_comparison
from mmhiper.evaluation.metric import build_metrics
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import to_pil
from mmhiper.utils.sheet import draw_sheet, save_sheet

EXAMPLE = """\
  mmhiper test configs/textual_inversion/textual_inversion.py \\
      work_dirs/textual_inversion/iter_1500.pth"""

SHOWN = 4  # pictures of each prompt on the sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('config', help='the config it was trained with')
    parser.add_argument(
        'checkpoint', help='iter_N.pth, or the iter_N.safetensors beside it'
    )
    parser.add_argument(
        '--num-images', type=int, default=10, help='per prompt (10)'
    )
    parser.add_argument(
        '--seed', type=int, default=1, help='of the first picture (1)'
    )
    add_guidance(parser)
    parser.add_argument(
        '--clip',
        metavar='NAME',
        help='CLIP model to compare with, a hub id or a folder (default: the '
        "backbone's own image_encoder/)",
    )
    parser.add_argument(
        '--out-dir', help='folder of the results (test/ by the checkpoint)'
    )


def read_sources(config: Config) -> dict[str, list[Any]]:
    """The pictures that the config trains on, upright and cropped.

    'inputs': (3, H, W) uint8 each, and their 'data_samples'.
    """
    register_all_modules()  # the dataset's transforms have no scope
    dataset = DATASETS.build(config.train_dataloader.dataset)
    batch: dict[str, list[Any]] = pseudo_collate(list(dataset))
    return batch


def show(report: dict[str, dict[str, Any]]) -> str:
    """The report as a table."""
    both = ('learned', 'plain')
    lines = [f'{"":22s}{"learned":>10s}{"plain text":>12s}']
    for name, value in report['learned'].items():
        plain = report['plain'][name]
        lines.append(f'{name:22s}{value:10.3f}{plain:12.3f}')
    for title, values in report.items():
        if title not in both:
            lines.append(f'{title}:')
            lines += [f'{k:22s}{v:10.3f}' for k, v in values.items()]
    return '\n'.join(lines)


def run(args: argparse.Namespace) -> None:
    """Draw, measure, report."""
    if args.num_images < 1:
        raise UserError(
            f'--num-images must be at least 1, but got {args.num_images}.'
        )
    out_dir = Path(args.out_dir or Path(args.checkpoint).parent / 'test')
    check_writable(out_dir)
    guidance = guidance_given(args)
    config = read_config(args.config)
    metrics = build_metrics(config)
    batch = read_sources(config)
    editor = load_editor(config, args.checkpoint)
    sources = [to_pil(pixels) for pixels in batch['inputs']]
    features = ClipFeatures(editor.sd, args.clip)
    used = editor.guidance_of(**guidance).plain()
    drawn = draw_comparison(editor, args.num_images, args.seed, **guidance)
    about = [
        [
            i
            for i, sample in enumerate(batch['data_samples'])
            if editor.is_about(k, sample)
        ]
        for k in range(len(drawn))
    ]
    report = compare_with_plain(features, sources, drawn, about)
    for metric in metrics:
        for side, said in metric.compare(sources, drawn, about).items():
            report.setdefault(side, {}).update(said)

    # as the model saw them, beside what it draws
    seen = [to_pil(each) for each in editor.data_preprocessor(batch)['inputs']]
    rows = []
    shown: list[int] = []
    for (text, learned, plain), own in zip(drawn, about, strict=True):
        if own != shown:
            shown = own
            rows.append([('learned from', seen[i]) for i in own[:SHOWN]])
        rows.append([(f'{text}, learned', image) for image in learned[:SHOWN]])
        rows.append([(f'{text}, plain', image) for image in plain[:SHOWN]])
    save_sheet(draw_sheet(rows), out_dir / 'sheet.png', used)
    (out_dir / 'report.json').write_text(
        json.dumps(dict(report, **used), indent=2) + '\n'
    )
    print(show(report))
    print(', '.join(f'{name} {value}' for name, value in used.items()))
    print(f'Sheet and report.json in {out_dir}')
