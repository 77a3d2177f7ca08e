"""Train the mini Stable Diffusion from nothing, resumably.

    python tools/mini_sd/train.py --work-dir work_dirs/mini_sd

Every stage keeps what it made in the work directory and is skipped when that
is there; a killed run goes on where it was when the command is given again.
Budgets are CPU time of a process: about a day in all by default, most of it
for the U-Net, which trains at a constant rate: it can be stopped and exported
at any time, finished by the stage ``anneal``, and gone on with later.

    python tools/mini_sd/train.py --stage anneal
    python tools/mini_sd/train.py --stage unet --minutes 2000
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
from recipe import clip, drawings, encode, export, tokenizer, unet, vae
from recipe.common import Log, together
from recipe.start import take_over

STAGES = (
    'draw',
    'vae',
    'tokenizer',
    'clip',
    'encode',
    'unet',
    'anneal',
    'decoder',
    'export',
)
MINUTES = {
    'vae': 120.0,
    'clip': 70.0,
    'unet': 1000.0,
    'anneal': 60.0,
    'decoder': 100.0,
}
DONE = {
    'draw': 'drawings.npy',
    'vae': 'autoencoder.pth',
    'tokenizer': 'tokenizer/vocab.json',
    'clip': 'clip.pth',
    'encode': 'latents.npy',
    'unet': 'unet.pth',
    'anneal': 'annealed.pth',
    'decoder': 'decoder.pth',
}
TRAIN = {
    'vae': vae.train_vae,
    'clip': clip.train_clip,
    'unet': unet.train_unet,
    'anneal': unet.anneal_unet,
    'decoder': vae.train_decoder,
}


def run(stage: str, args: argparse.Namespace, log: Log) -> None:
    """Run one stage."""
    work_dir: Path = args.work_dir
    share = partial(together, work_dir=work_dir, processes=args.processes)
    if args.start:
        take_over(stage, args.start, work_dir, log)
    if stage in TRAIN:
        minutes = args.minutes or MINUTES[stage]
        share(partial(TRAIN[stage], work_dir, minutes, log))
    elif stage == 'draw':
        drawings.draw_all(work_dir, args.processes)
    elif stage == 'tokenizer':
        drawings.write_captions(work_dir)
        tokenizer.train_tokenizer(work_dir, log)
    elif stage == 'encode':
        if not (work_dir / 'texts.npy').exists():
            share(partial(encode.encode_texts, work_dir, log))
        share(partial(encode.encode_latents, work_dir, log))
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
        '--minutes',
        type=float,
        help='CPU time of the stage to train, more than it had to go on',
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=os.cpu_count() or 1,
        help='of one thread each (default: one per core)',
    )
    parser.add_argument(
        '--start',
        type=Path,
        help='an exported model whose weights to begin from, not from chance',
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
        finished = done and (args.work_dir / done).exists()
        if finished and not args.minutes:
            log(f'{stage}: already done')
            continue
        run(stage, args, log)


if __name__ == '__main__':
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))
    main()
