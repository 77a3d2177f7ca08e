"""Stage ``clip``: a contrastive pair of text and image encoder.

Every picture has, beside the captions of the other pictures, a *near miss* to
tell from its own: the same caption with one word changed. Colour and place
alone tell most pictures of a batch apart, so without near misses the pair
never learns what else a word means, and what the text encoder leaves out, no
U-Net can follow ("dog" and "cat" came out all but the same).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
from world import FURS, PAINTS, POSES
from world.scene import TAILS

SEED = 12
WIDTH, LAYERS, HEADS = 128, 4, 4
BATCH = 192
SHIFT = 4  # pixels, at most, up, down, left or right
PEAK_RATE = 1e-3
# Words that a near miss exchanges, those that pictures hint at least first.
RARE_KINDS = (('dog', 'cat'), ('hat', 'scarf', 'ball'))
KINDS = (
    *RARE_KINDS,
    POSES,
    tuple(FURS),
    tuple(PAINTS),
    TAILS,
    ('spots', 'stripes'),
    ('floppy', 'pointy'),
    ('big', 'small'),
)
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

    def embed_texts(self, ids: Tensor) -> Tensor:
        """Return unit vectors of texts, (T, 128)."""
        return F.normalize(
            self.text(input_ids=ids).pooler_output.float(), dim=-1
        )

    def forward(self, ids: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors of T texts and B images, 128 wide each."""
        images = self.image(pixel_values=pixels).image_embeds
        return self.embed_texts(ids), F.normalize(images.float(), dim=-1)


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


class NearMisses:
    """Changes one word of a caption into another of its kind."""

    def __init__(self, work_dir: Path) -> None:
        tokenizer = load_tokenizer(work_dir)
        self._others: dict[int, list[int]] = {}
        for kind in KINDS:
            ids = tokenizer.convert_tokens_to_ids([f'{w}</w>' for w in kind])
            for token in ids:
                self._others[token] = [i for i in ids if i != token]
        rare = [f'{word}</w>' for kind in RARE_KINDS for word in kind]
        self._rare = set(tokenizer.convert_tokens_to_ids(rare))

    def __call__(
        self, ids: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return changed ids (B, 77), and where there was a word to change.

        Half the time one of the rare kinds is taken, where there is one.
        """
        changed = ids.copy()
        found = np.zeros(len(ids), bool)
        for row, missed in enumerate(changed):
            places = [k for k, t in enumerate(missed) if t in self._others]
            rare = [k for k in places if missed[k] in self._rare]
            if not places:
                continue
            take = rare if rare and rng.random() < 0.5 else places
            place = take[rng.integers(len(take))]
            missed[place] = rng.choice(self._others[missed[place]])
            found[row] = True
        return changed, found


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
    near_misses = NearMisses(work_dir)
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
        missed, found = near_misses(chosen, rng)
        pixels = _shifted(drawings[index], rng)
        with autocast():
            texts, images = pair(
                crop(np.concatenate([chosen, missed])), pixels
            )
        likeness = pair.scale.clamp(max=math.log(100)).exp() * images @ texts.T
        # (B, 2B): to captions, then to near misses; an unchanged one is none
        same = torch.from_numpy(~found).to(likeness.device)
        same = torch.cat([torch.zeros_like(same), same])
        right = torch.arange(BATCH, device=likeness.device)
        return 0.5 * (
            F.cross_entropy(likeness.masked_fill(same, -100.0), right)
            + F.cross_entropy(likeness[:, :BATCH].T, right)
        )

    @torch.no_grad()
    def near_and_far(model: Any) -> str:
        """Shares of unseen pictures whose caption wins: of 128, and of two
        that differ by one word."""
        right, told, pairs = 0.0, 0.0, 0
        rng = np.random.default_rng(SEED)
        for start in range(seen, seen + UNSEEN, 128):
            texts, images = model(
                crop(ids[start : start + 128, 0]),
                _normal(drawings[start : start + 128]),
            )
            best = (images @ texts.T).argmax(1)
            right += float((best == torch.arange(128).to(best)).sum())
            missed, found = near_misses(ids[start : start + 128, 0], rng)
            other = model.embed_texts(crop(missed))
            wins = (images * texts).sum(1) > (images * other).sum(1)
            told += float(wins[torch.from_numpy(found).to(wins.device)].sum())
            pairs += int(found.sum())
        return (
            f'{100 * right / UNSEEN:.1f} % top-1 of 128 and '
            f'{100 * told / pairs:.1f} % of near misses on unseen'
        )

    fit(
        'clip',
        pair,
        loss_of,
        work_dir,
        log,
        minutes=minutes,
        rate=PEAK_RATE,
        seed=SEED,
        watch=near_and_far,
    )
