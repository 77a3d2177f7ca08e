"""Stage ``encode``: latents and text embeddings, computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .clip import WIDTH, ClipPair, load_clip, tokenize_all
from .common import (
    Log,
    autocast,
    device,
    open_part,
    rank,
    ranks,
    wait_for_all,
)
from .drawings import load_drawings
from .names import everyone
from .tokenizer import POSITIONS, load_tokenizer
from .vae import load_vae, to_pixels


@torch.no_grad()
def encode_texts(work_dir: Path, log: Log) -> None:
    """Write ``texts.npy`` (COUNT, CAPTIONS, 77, 128) and ``empty.npy``.

    What the U-Net reads: the text encoder's last hidden state, fp16.
    Processes that run it together share the work.
    """
    pair = load_clip(work_dir)
    ids = tokenize_all(work_dir)
    people = torch.from_numpy(everyone()[0])
    part = work_dir / 'texts.part.npy'
    if rank() == 0:
        open_part(part, np.float16, (*ids.shape, WIDTH))
        np.save(work_dir / 'empty.npy', _empty(work_dir, pair))
    wait_for_all()
    texts = np.load(part, mmap_mode='r+')
    for start in range(32 * rank(), len(ids), 32 * ranks()):
        some = slice(start, start + 32)
        if texts[some][-1].any():  # of a run that was killed
            continue
        chosen = torch.from_numpy(ids[some].astype(np.int64)).flatten(0, 1)
        who = people[some].repeat_interleave(ids.shape[1], 0)
        with autocast():
            hidden = pair.read(chosen.to(device()), who.to(device()))[0]
        texts[some] = hidden.half().cpu().numpy().reshape(-1, *texts.shape[1:])
    texts.flush()
    wait_for_all()
    if rank() == 0:
        part.replace(work_dir / 'texts.npy')
        log(f'encode: texts {texts.shape}')


def _empty(work_dir: Path, pair: ClipPair) -> np.ndarray:
    """The embedding of no text, (77, 128) fp16."""
    ids = load_tokenizer(work_dir)(
        '', padding='max_length', max_length=POSITIONS, return_tensors='pt'
    )['input_ids']
    hidden = pair.text(input_ids=ids.to(device())).last_hidden_state
    return hidden[0].half().cpu().numpy()


@torch.no_grad()
def encode_latents(work_dir: Path, log: Log) -> None:
    """Write ``latents.npy`` (COUNT, 4, 16, 16) fp16: unscaled means.

    Processes that run it together share the work.
    """
    vae = load_vae(work_dir)
    drawings = load_drawings(work_dir)
    part = work_dir / 'latents.part.npy'
    if rank() == 0:
        open_part(part, np.float16, (len(drawings), 4, 16, 16))
    wait_for_all()
    latents = np.load(part, mmap_mode='r+')
    for start in range(32 * rank(), len(drawings), 32 * ranks()):
        some = slice(start, start + 32)
        if latents[some][-1].any():  # of a run that was killed
            continue
        with autocast():
            mean = vae.encode(to_pixels(drawings[some])).latent_dist.mode()
        latents[some] = mean.half().cpu().numpy()
    latents.flush()
    wait_for_all()
    if rank() == 0:
        part.replace(work_dir / 'latents.npy')
        log(
            f'encode: latents {latents.shape}, scaling factor '
            f'{scaling_factor(work_dir):.4f}'
        )


def scaling_factor(work_dir: Path) -> float:
    """What brings the latents to a standard deviation of one."""
    latents = np.load(work_dir / 'latents.npy', mmap_mode='r')
    return float(1 / latents[:4096].astype(np.float32).std())
