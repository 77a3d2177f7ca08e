"""Report whether an editor has learned its pictures, and follows its texts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image

from mmhiper.apis import load_editor
from mmhiper.cli.options import add_guidance, guidance_given
from mmhiper.engine.launch import check_writable
from mmhiper.evaluation import ClipFeatures, compare_with_plain
from mmhiper.evaluation.learned import Drawn, draw_comparison
from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.pictures import to_pil
from mmhiper.utils.sheet import draw_sheet, save_sheet
from mmhiper.utils.shipped import shipped

EXAMPLE = """\
  mmhiper test configs/textual_inversion/textual_inversion.py \\
      work_dirs/textual_inversion/iter_1500.pth"""

MINI_SD_TOOLS = shipped('tools/mini_sd')
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
        '--judge',
        type=Path,
        nargs='?',
        const=MINI_SD_TOOLS / 'judge.safetensors',
        metavar='PATH',
        help='also ask the judge of the mini world; give it last, or with the '
        'weights of another judge (tools/mini_sd/judge.safetensors)',
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


def ask_judge(
    path: Path,
    sources: list[Image.Image],
    drawn: list[Drawn],
    about: list[list[int]],
) -> dict[str, dict[str, float]]:
    """What the judge says; it knows the mini world alone.

    Prompts about other pictures are asked about for themselves, and the
    answers are averaged. Beside both sides stands how good the judge is.
    """
    sys.path.insert(0, str(MINI_SD_TOOLS))
    from evaluate_textual_inversion import measure_pictures

    from judge import load_judge

    judge = load_judge(path)
    answers: dict[str, dict[str, list[float]]] = {'learned': {}, 'plain': {}}
    for own in sorted(set(map(tuple, about))):
        rows = [
            row
            for row, which in zip(drawn, about, strict=True)
            if tuple(which) == own
        ]
        texts, learned, plain = zip(*rows, strict=True)
        for side, pictures in (('learned', learned), ('plain', plain)):
            said = measure_pictures(
                judge, [sources[i] for i in own], list(texts), list(pictures)
            )
            for name, value in said.items():
                answers[side].setdefault(name, []).extend([value] * len(rows))
    sides = {
        side: {name: float(np.mean(each)) for name, each in found.items()}
        for side, found in answers.items()
    }
    return {**sides, 'judge': judge.accuracy}


def show(report: dict[str, dict[str, Any]]) -> str:
    """The report as a table."""
    lines = [f'{"":22s}{"learned":>10s}{"plain text":>12s}']
    for name, value in report['learned'].items():
        plain = report['plain'][name]
        lines.append(f'{name:22s}{value:10.3f}{plain:12.3f}')
    if 'judge' in report:
        lines.append('The judge itself, on drawings that it has not seen:')
        lines += [f'{k:22s}{v:10.3f}' for k, v in report['judge'].items()]
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
    if args.judge:
        for side, said in ask_judge(args.judge, sources, drawn, about).items():
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
