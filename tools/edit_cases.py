"""Invert and edit the pictures of a table, one case after another.

    python tools/edit_cases.py data/style_diffusion_cases.csv --out-dir out

A row of the table is a case: `name`, `image` (its path from the folder of the
table), `prompt` (what it shows), `target` (what to make of it), and, where
they are to differ from the defaults, `edit_type`, `tau_v`, `tau_c`, `tau_s`,
`tau_u`, `blend_words` ("dog > cat"), `reweight` and `cross_replace` ("hat=2;
red=0.5"). Cases of the same image and prompt share their inversion.

What is done is skipped, so the same command goes on after a stop. Start it by
`python -m torch.distributed.run --nproc_per_node N` to spread the cases over
N processes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from PIL import Image

from mmhiper.cli.errors import user_errors
from mmhiper.cli.options import ConfigOptions
from mmhiper.engine.launch import check_writable, train
from mmhiper.interruption import watch_launcher
from mmhiper.models.prompt_alignment import Prompt
from mmhiper.models.prompt_to_prompt import EditOptions, PromptToPrompt
from mmhiper.registry import DATASETS, MODELS
from mmhiper.utils import register_all_modules
from mmhiper.utils.errors import UserError
from mmhiper.utils.pictures import to_pil
from mmhiper.utils.sheet import draw_sheet
from mmhiper.utils.shipped import config_path, or_shipped

CONFIG = Path(__file__).parents[1] / 'configs/style_diffusion/dog.py'
NEEDED = ('name', 'image', 'prompt', 'target')
FRACTIONS = ('tau_v', 'tau_c', 'tau_s', 'tau_u')
WEIGHTS = ('reweight', 'cross_replace')
COLUMNS = (*NEEDED, 'edit_type', *FRACTIONS, 'blend_words', *WEIGHTS)


@dataclass(frozen=True)
class Case:
    """A picture, its text, and an edit.

    Attributes:
        name (str): Also the folder of its results.
        image (str): Path of the picture.
        prompt (str): What it shows.
        target (str): The prompt of the edit.
        options (dict): See ``mmhiper.models.prompt_to_prompt.EditOptions``.
    """

    name: str
    image: str
    prompt: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Invert and edit the pictures of a table.'
    )
    parser.add_argument('cases', type=or_shipped, help='a .csv table of cases')
    parser.add_argument('--out-dir', type=Path, required=True)
    parser.add_argument(
        '--config', default=CONFIG, help='(configs/style_diffusion/dog.py)'
    )
    parser.add_argument(
        '--editor',
        help='another type than that of the config, to compare: '
        'NullTextInversion, NegativePromptInversion or DDIMInversion',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE'
    )
    return parser.parse_args()


def read_cases(path: Path) -> list[Case]:
    """Read a table.

    Raises:
        ValueError: If a column is missing or unknown, or a value is wrong.
    """
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    if not rows:
        raise UserError(f'The table {str(path)!r} has no cases.')
    columns = set(rows[0]) - {None}
    missing, unknown = set(NEEDED) - columns, columns - set(COLUMNS)
    if missing or unknown:
        raise UserError(
            f'The table {str(path)!r} must have the columns '
            f'{", ".join(NEEDED)} and may have '
            f'{", ".join(COLUMNS[len(NEEDED) :])}; missing: '
            f'{sorted(missing) or "none"}, unknown: '
            f'{sorted(unknown) or "none"}.'
        )
    cases = [read_case(row, path.parent) for row in rows]
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1 or not re.fullmatch(r'[\w.-]+', name):
            raise UserError(
                'The name of a case is a folder of its own: letters, digits, '
                f'"_", "-" and ".", and each once; but got {name!r}.'
            )
    return cases


def read_case(row: dict[str, str], folder: Path) -> Case:
    """Turn a row into a case; empty cells are defaults."""
    options: dict[str, Any] = {}
    try:
        for column in FRACTIONS:
            if row.get(column):
                options[column] = float(row[column])
        for column in WEIGHTS:
            if row.get(column):
                pairs = (pair.split('=') for pair in row[column].split(';'))
                options[column] = {w.strip(): float(x) for w, x in pairs}
    except ValueError:
        raise UserError(
            f'Case {row["name"]!r}: `{column}` must be a number, or words '
            f'with numbers ("hat=2; red=0.5"), but got {row[column]!r}.'
        ) from None
    if row.get('edit_type'):
        options['edit_type'] = row['edit_type']
    if row.get('blend_words'):
        words = [word.strip() for word in row['blend_words'].split('>')]
        options['blend_words'] = words[0] if len(words) == 1 else words
    image = str(folder / row['image'])
    return Case(row['name'], image, row['prompt'], row['target'], options)


def make_config(case: Case, args: argparse.Namespace) -> Config:
    """The config of the inversion of a case."""
    cfg = Config.fromfile(config_path(args.config))
    key = hashlib.blake2b(
        f'{case.image}\n{case.prompt}'.encode(), digest_size=4
    ).hexdigest()
    name = f'{args.editor or cfg.model.type}-{Path(case.image).stem}-{key}'
    cfg.merge_from_dict(
        {
            'work_dir': str(args.out_dir / 'inversions' / name),
            # MMEngine lets runs of the same name and second share state
            'experiment_name': name,
            'train_dataloader.dataset.img': case.image,
            'model.source_text': case.prompt,
            'model.target_text': None,
        }
    )
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.editor:
        cfg.model.type = args.editor
        if args.editor != 'StyleDiffusion':
            for option in ('image_encoder', 'attention_weight'):
                cfg.model.pop(option, None)
    cfg.custom_hooks = [
        hook
        for hook in cfg.custom_hooks
        if hook.type not in ('PreviewHook', 'NextStepsHook')
    ]
    return cfg


def invert(cfg: Config) -> Any:
    """Train the editor of a case, or go on, or find it done."""
    if hasattr(MODELS.get(cfg.model.type), 'max_iters'):
        return train(cfg, resume='auto').model.eval()
    options = dict(cfg.model)
    options.pop('num_inner_steps', None)
    editor = MODELS.build(options)
    if torch.cuda.is_available():
        editor.cuda()
    editor.invert(**batch_of(cfg, editor))
    return editor.eval()


def batch_of(cfg: Config, editor: Any) -> dict:
    """The picture of a case, as the editor sees it."""
    item = DATASETS.build(cfg.train_dataloader.dataset)[0]
    return editor.data_preprocessor(
        dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
    )


def check(case: Case) -> None:
    """Find a mistake in an edit before its inversion costs anything.

    Raises:
        ValueError: If a value is out of range, a word is missing, or the
            prompts do not fit together.
    """
    options = EditOptions(**case.options)
    # what is wrong with words shows whatever their tokens are
    texts = (case.prompt, case.target)
    room = 2 + max(len(text.split()) for text in texts)
    source, target = (
        Prompt.parse(text, lambda word: [0], room) for text in texts
    )
    PromptToPrompt(source, target, options, 100, torch.device('cpu'))
    for prompt, words in zip(
        (source, target), options.words_to_blend() or ((), ()), strict=True
    ):
        prompt.indicator(words)


def run(case: Case, args: argparse.Namespace) -> None:
    """Invert, edit, and write pictures, the sheet last."""
    folder = args.out_dir / case.name
    folder.mkdir(exist_ok=True)
    check(case)
    cfg = make_config(case, args)
    editor = invert(cfg)
    pixels = batch_of(cfg, editor)['inputs']
    coded = editor.sd.decode(editor.sd.encode_image(pixels)).clamp(-1, 1)
    drawn = editor.infer(
        case.target, return_reconstruction=True, **case.options
    )
    pictures: dict[str, Image.Image] = dict(
        source=to_pil(pixels[0]),
        autoencoder=to_pil(coded[0]),
        inversion=drawn['reconstructions'][0],
        edit=drawn['samples'][0],
    )
    for name, picture in pictures.items():
        picture.save(folder / f'{name}.png')
    captions = [case.prompt, 'autoencoder', 'inversion', case.target]
    sheet = draw_sheet([list(zip(captions, pictures.values(), strict=True))])
    sheet.save(folder / 'sheet.png')
    (folder / 'error.txt').unlink(missing_ok=True)
    # what it was drawn from, last: its presence says that all is there
    (folder / 'case.json').write_text(described(case, args))


def described(case: Case, args: argparse.Namespace) -> str:
    """All that decides what a case looks like."""
    setting = dict(
        config=str(args.config),
        editor=args.editor,
        cfg_options=args.cfg_options,
    )
    return json.dumps(asdict(case) | setting, indent=1, default=str)


def is_done(case: Case, args: argparse.Namespace) -> bool:
    """Whether the results of a case are there, from this very row."""
    path = args.out_dir / case.name / 'case.json'
    return path.is_file() and path.read_text() == described(case, args)


def main() -> int:
    """Go through the table; 1 if a case failed."""
    args = parse_args()
    watch_launcher()
    register_all_modules()
    cases = read_cases(args.cases)
    check_writable(args.out_dir)
    rank, processes = (
        int(os.environ.get(name, default))
        for name, default in (('RANK', 0), ('WORLD_SIZE', 1))
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
    failed = []
    # cases of one inversion stay in one process
    inversions = sorted({(case.image, case.prompt) for case in cases})
    for case in cases:
        if inversions.index((case.image, case.prompt)) % processes != rank:
            continue
        if is_done(case, args):
            print(f'{case.name}: already done')
            continue
        print(f'{case.name}: {case.prompt} -> {case.target}')
        try:
            run(case, args)
        except Exception as error:
            failed.append(f'  {case.name}: {error}')
            path = args.out_dir / case.name / 'error.txt'
            path.write_text(traceback.format_exc())
    if failed:
        print(f'{len(failed)} case(s) failed, details in error.txt of each:')
        print('\n'.join(failed))
    print(f'Sheets  {args.out_dir}/*/sheet.png')
    return int(bool(failed))


if __name__ == '__main__':
    with user_errors():
        sys.exit(main())
