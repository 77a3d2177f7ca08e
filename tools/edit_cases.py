"""Invert and edit the pictures of a table, one case after another.

    python tools/edit_cases.py data/style_diffusion_cases.csv --out-dir out

A row of the table is a case: `name`, `image` (its path from the folder of the
table), `prompt` (what it shows), `target` (what to make of it), and, where
they are to differ from the defaults:

    edit_type, align            a name
    tau_v, tau_c, tau_s, tau_u  0.6; "(0.1, 0.6)" for where it starts and
                                ends; "[0.4, 0.6]" for an edit with each
    blend_words                 "dog > cat", or "dog; hat > cat; hat"
    substruct_words             likewise
    thresholds                  "(0.3, 0.3)"
    start_blend                 0.2
    reweight, cross_replace     "hat=2; red=0.5"

Words may be given by their places, "#0" for the first. Cases of the same
image and prompt share their inversion.

What is done is skipped, so the same command goes on after a stop. Start it by
`python -m torch.distributed.run --nproc_per_node N` to spread the cases over
N processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
from mmengine.config import Config
from PIL import Image

from mmhiper.bench.methods import OF_STYLE_DIFFUSION, change_editor
from mmhiper.cli.config_values import merge_options
from mmhiper.cli.errors import user_errors
from mmhiper.cli.options import (
    ConfigOptions,
    add_guidance,
    guidance_given,
    show_options,
)
from mmhiper.engine.launch import train
from mmhiper.engine.share import Share, wait_for_others
from mmhiper.interruption import watch_launcher
from mmhiper.io.case_table import INVERSIONS, Case, read_cases
from mmhiper.models.edit_options import EditOptions
from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_to_prompt import PromptToPrompt
from mmhiper.registry import DATASETS, MODELS
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config
from mmhiper.utils.devices import best_device
from mmhiper.utils.names import safe_name
from mmhiper.utils.pixels import to_pil
from mmhiper.utils.sheet import draw_sheet, save_sheet
from mmhiper.utils.shipped import or_shipped

CONFIG = Path(__file__).parents[1] / 'configs/style_diffusion/dog.py'


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
        'NullTextInversion, NegativePromptInversion, DirectInversion or '
        'DDIMInversion, each with as many steps as its own paper takes',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE'
    )
    add_guidance(parser)
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show what was understood of --cfg-options, and the traceback '
        'of an error in place of one line',
    )
    args = parser.parse_args()
    args.guidance = guidance_given(args)
    return args


def make_config(case: Case, args: argparse.Namespace) -> Config:
    """The config of the inversion of a case."""
    cfg = read_config(args.config)
    key = hashlib.blake2b(
        f'{case.image}\n{case.prompt}'.encode(), digest_size=4
    ).hexdigest()
    kind = args.editor or cfg.model.type
    name = safe_name(f'{kind}-{Path(case.image).stem[:40]}') + f'-{key}'
    cfg.merge_from_dict(
        {
            'work_dir': str(args.out_dir / INVERSIONS / name),
            # MMEngine lets runs of the same name and second share state
            'experiment_name': name,
            'train_dataloader.dataset.img': case.image,
            'model.source_text': case.prompt,
            'model.target_text': None,
        }
    )
    other = args.editor not in (None, cfg.model.type)
    if other:
        change_editor(cfg, args.editor)
    if args.cfg_options:
        merge_options(cfg, args.cfg_options, args.cfg_options_texts)
    if other:
        for option in OF_STYLE_DIFFUSION:
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
    editor.to(best_device())
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
    for name in ('blend_words', 'substruct_words'):
        for prompt, words in zip(
            (source, target),
            options.words_of_both(name) or ((), ()),
            strict=True,
        ):
            prompt.indicator(words)


def run(case: Case, args: argparse.Namespace) -> None:
    """Invert, edit, and write pictures, the sheet last."""
    folder = args.out_dir / case.name
    check_writable(folder)
    check(case)
    cfg = make_config(case, args)
    editor = invert(cfg)
    pixels = batch_of(cfg, editor)['inputs']
    coded = editor.sd.decode(editor.sd.encode_image(pixels)).clamp(-1, 1)
    drawn = editor.infer(
        case.target,
        return_reconstruction=True,
        **case.options,
        **args.guidance,
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
    used = editor.guidance_of(**args.guidance).plain()
    save_sheet(sheet, folder / 'sheet.png', used)
    (folder / 'error.txt').unlink(missing_ok=True)
    # what it was drawn from, last: its presence says that all is there
    (folder / 'case.json').write_bytes(described(case, args).encode())


def described(case: Case, args: argparse.Namespace) -> str:
    """All that decides what a case looks like."""
    setting = dict(
        config=str(args.config),
        editor=args.editor,
        cfg_options=args.cfg_options,
        **args.guidance,
    )
    return json.dumps(asdict(case) | setting, indent=1, default=str)


def is_done(case: Case, args: argparse.Namespace) -> bool:
    """Whether the results of a case are there, from this very row."""
    path = args.out_dir / case.name / 'case.json'
    # of bytes: what another program has damaged is no text
    wanted = described(case, args).encode()
    return path.is_file() and path.read_bytes() == wanted


def main() -> int:
    """Go through the table; 1 if a case failed."""
    args = parse_args()
    if args.debug:
        show_options(args.cfg_options)
    watch_launcher()
    register_all_modules()
    cases = read_cases(args.cases)
    check_writable(args.out_dir)
    share = Share.of()
    failed = []
    # cases of one inversion stay in one process
    inversions = sorted({(case.image, case.prompt) for case in cases})
    for case in cases:
        number = inversions.index((case.image, case.prompt))
        if number % share.count != share.number:
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
            with suppress(OSError):  # where there is no writing, for instance
                path.write_text(traceback.format_exc(), 'utf-8', 'replace')
    if failed:
        print(f'{len(failed)} case(s) failed, details in error.txt of each:')
        print('\n'.join(failed))
    print(f'Sheets  {args.out_dir}/*/sheet.png', flush=True)
    wait_for_others()
    return int(bool(failed))


if __name__ == '__main__':
    with user_errors('--debug' in sys.argv):
        sys.exit(main())
