"""Stage ``clip``: a contrastive pair of text and image encoder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .common import Log, autocast, device, fit, seeded
from .drawings import SIZE, UNSEEN, load_captions, load_drawings
from .tokenizer import POSITIONS, load_tokenizer

SEED = 12
WIDTH, LAYERS, HEADS = 128, 4, 4
BATCH = 192
SHIFT = 4  # pixels, at most, up, down, left or right
PEAK_RATE = 1e-3
# CLIP's own normalisation of [0, 1] pixels, so its feature extractor fits.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipPair(nn.Module):
    """Both encoders, and the temperature of their likeness."""

    def __init__(self, vocabulary: int, start: int, end: int) -> None:
        super().__init__()
        shape = {
            'hidden_size': WIDTH,
            'intermediate_size': 4 * WIDTH,
            'num_hidden_layers': LAYERS,
            'num_attention_heads': HEADS,
            'projection_dim': WIDTH,
        }
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                max_position_embeddings=POSITIONS,
                bos_token_id=start,
                eos_token_id=end,
                pad_token_id=end,
                **shape,
            )
        )
        self.image = CLIPVisionModelWithProjection(
            CLIPVisionConfig(image_size=SIZE, patch_size=16, **shape)
        )
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, ids: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors of texts and images, (B, 128) each."""
        texts = self.text(input_ids=ids).pooler_output
        images = self.image(pixel_values=pixels).image_embeds
        return (
            F.normalize(texts.float(), dim=-1),
            F.normalize(images.float(), dim=-1),
        )


def build_clip(work_dir: Path) -> ClipPair:
    """Return an untrained pair for the trained tokenizer."""
    tokenizer = load_tokenizer(work_dir)
    with seeded(SEED):
        pair = ClipPair(
            len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id
        )
    # On the CPU the fused attention's backward is the slowest part of a step.
    pair.text.set_attn_implementation('eager')
    pair.image.set_attn_implementation('eager')
    return pair.to(device())


def load_clip(work_dir: Path) -> ClipPair:
    """Return the trained pair, frozen."""
    pair = build_clip(work_dir).eval().requires_grad_(False)
    saved = torch.load(work_dir / 'clip.pth', map_location=device())
    pair.load_state_dict(saved['model'])
    return pair


def tokenize_all(work_dir: Path) -> np.ndarray:
    """Return the ids of all captions, (COUNT, CAPTIONS, 77) int16."""
    captions = load_captions(work_dir)
    tokenizer = load_tokenizer(work_dir)
    ids = tokenizer(
        [text for texts in captions for text in texts],
        padding='max_length',
        truncation=True,
        max_length=POSITIONS,
    )['input_ids']
    return np.asarray(ids, np.int16).reshape(len(captions), -1, POSITIONS)


def _shifted(drawings: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W), normalised, each moved a little."""
    moved = np.pad(
        drawings, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), 'edge'
    )
    corner = rng.integers(0, 2 * SHIFT + 1, (len(drawings), 2))
    return _normal(
        np.stack(
            [
                picture[y : y + SIZE, x : x + SIZE]
                for picture, (y, x) in zip(moved, corner, strict=True)
            ]
        )
    )


def _normal(drawings: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(np.array(drawings)).to(device())
    pixels = pixels.permute(0, 3, 1, 2).float() / 255
    mean = pixels.new_tensor(MEAN)[:, None, None]
    return (pixels - mean) / pixels.new_tensor(STD)[:, None, None]


def train_clip(work_dir: Path, minutes: float, log: Log) -> None:
    """Train for a budget of wall time and save ``clip.pth``."""
    drawings = load_drawings(work_dir)
    pair = build_clip(work_dir)
    ids = tokenize_all(work_dir)
    end = pair.text.config.eos_token_id
    seen = len(drawings) - UNSEEN

    def crop(chosen: np.ndarray) -> Tensor:
        """Cut what is padding in all texts: causal, so nothing changes."""
        longest = int((chosen != end).sum(1).max()) + 1
        return torch.from_numpy(chosen[:, :longest].astype(np.int64)).to(
            device()
        )

    def loss_of(rng: np.random.Generator, share: float) -> Tensor:
        index = rng.integers(0, seen, BATCH)
        chosen = ids[index, rng.integers(0, ids.shape[1], BATCH)]
        pixels = _shifted(drawings[index], rng)
        with autocast():
            texts, images = pair(crop(chosen), pixels)
        likeness = pair.scale.clamp(max=math.log(100)).exp() * texts @ images.T
        right = torch.arange(BATCH, device=likeness.device)
        return 0.5 * (
            F.cross_entropy(likeness, right)
            + F.cross_entropy(likeness.T, right)
        )

    @torch.no_grad()
    def top1(model: nn.Module) -> str:
        """Share of unseen pictures whose caption wins among 128."""
        right = 0.0
        for start in range(seen, seen + UNSEEN, 128):
            texts, images = model(
                crop(ids[start : start + 128, 0]),
                _normal(drawings[start : start + 128]),
            )
            best = (images @ texts.T).argmax(1)
            right += float((best == torch.arange(128).to(best)).sum())
        return f'{100 * right / UNSEEN:.1f} % top-1 of 128 on unseen'

    fit(
        'clip',
        pair,
        loss_of,
        work_dir,
        log,
        minutes=minutes,
        rate=PEAK_RATE,
        seed=SEED,
        watch=top1,
    )
