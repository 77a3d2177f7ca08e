"""Train the mini Stable Diffusion from nothing, resumably.

    python tools/mini_sd/train.py --work-dir work_dirs/mini_sd

Every stage keeps what it made in the work directory and is skipped when that
is there; a killed run goes on where it was when the command is given again.
About four hours on 2 CPU cores by the default budgets.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

import torch
from recipe import clip, drawings, encode, export, tokenizer, unet, vae
from recipe.common import Log, together

STAGES = (
    'draw',
    'tokenizer',
    'clip',
    'vae',
    'encode',
    'unet',
    'decoder',
    'export',
)
MINUTES = {'clip': 30.0, 'vae': 60.0, 'unet': 120.0, 'decoder': 15.0}
DONE = {
    'draw': 'drawings.npy',
    'tokenizer': 'tokenizer/vocab.json',
    'clip': 'clip.pth',
    'vae': 'autoencoder.pth',
    'encode': 'latents.npy',
    'unet': 'unet.pth',
    'decoder': 'decoder.pth',
}


def run(stage: str, args: argparse.Namespace, log: Log) -> None:
    """Run one stage."""
    work_dir: Path = args.work_dir
    minutes = args.minutes or MINUTES.get(stage, 0.0)
    if stage == 'draw':
        drawings.draw_all(work_dir)
    elif stage == 'tokenizer':
        tokenizer.train_tokenizer(work_dir, log)
    elif stage == 'clip':
        clip.train_clip(work_dir, minutes, log)
    elif stage == 'vae':
        together(partial(vae.train_vae, work_dir, minutes, log), work_dir)
    elif stage == 'encode':
        if not (work_dir / 'texts.npy').exists():
            encode.encode_texts(work_dir, log)
        together(partial(encode.encode_latents, work_dir, log), work_dir)
    elif stage == 'unet':
        together(partial(unet.train_unet, work_dir, minutes, log), work_dir)
    elif stage == 'decoder':
        together(partial(vae.train_decoder, work_dir, minutes, log), work_dir)
    else:
        export.export(work_dir, args.out or work_dir / 'export', log)


def main() -> None:
    """Parse the command line and run the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/mini_sd')
    )
    parser.add_argument(
        '--stage', choices=STAGES, help='run this one only (default: all)'
    )
    parser.add_argument(
        '--minutes', type=float, help='wall time of the stage to train'
    )
    parser.add_argument(
        '--out', type=Path, help='export to (default: WORK_DIR/export)'
    )
    args = parser.parse_args()
    if args.minutes and not args.stage:
        parser.error('--minutes needs --stage')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    log = Log(args.work_dir)
    for stage in [args.stage] if args.stage else STAGES:
        done = DONE.get(stage)
        if done and (args.work_dir / done).exists():
            log(f'{stage}: already done')
            continue
        run(stage, args, log)


if __name__ == '__main__':
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))
    main()
