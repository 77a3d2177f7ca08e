"""Stage ``clip``: a contrastive pair of text and image encoder.

Every picture has, beside the captions of the other pictures, a *near miss* to
tell from its own: the same caption with one word changed. Colour and place
alone tell most pictures of a batch apart, so without near misses the pair
never learns what else a word means, and what the text encoder leaves out, no
U-Net can follow ("dog" and "cat" came out all but the same). The near miss of
a caption with a name is mostly the name of one who looks alike.
"""

from __future__ import annotations

import math
from functools import partial
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

from .common import Log, autocast, device, fit, load, seeded
from .drawings import (
    CAPTIONS,
    COUNT,
    SIZE,
    UNSEEN,
    load_captions,
    load_drawings,
)
from .names import NUMBERS, Names, everyone
from .tokenizer import POSITIONS, load_tokenizer, name_id
from world import FURS, PAINTS, POSES
from world.scene import TAILS

SEED = 12
WIDTH, LAYERS, HEADS = 128, 4, 4
BATCH = 192
SHIFT = 4  # pixels, at most, up, down, left or right
PEAK_RATE = 1e-3
MISNAMED_SHARE = 0.7  # of the near misses of captions with a name
WHO_WEIGHT = 0.2
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
    ('dark', 'light'),
    ('slim', 'chubby'),
)
# CLIP's own normalisation of [0, 1] pixels, so its feature extractor fits.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipPair(nn.Module):
    """Both encoders, the names, and the temperature of their likeness."""

    def __init__(
        self, vocabulary: int, start: int, end: int, name: int
    ) -> None:
        super().__init__()
        self._name = name
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
        self.names = Names(WIDTH)
        self.who = nn.Linear(WIDTH, NUMBERS)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def named(self, ids: Tensor) -> Tensor:
        """Return in which texts (T, 77) there is a name, (T,)."""
        return (ids == self._name).any(1)

    def read(self, ids: Tensor, who: Tensor) -> tuple[Tensor, Tensor]:
        """Read texts whose names are those of individuals (T, 57).

        Returns:
            the last hidden state (T, 77, 128), which a U-Net reads, and unit
            vectors (T, 128).
        """
        rows = self.names(who)[:, None]  # (T, 1, 128)
        here = (ids == self._name)[..., None]
        hook = self.text.get_input_embeddings().register_forward_hook(
            lambda *call: torch.where(here, rows, call[-1])
        )
        try:
            made = self.text(input_ids=ids)
        finally:
            hook.remove()
        vectors = F.normalize(made.pooler_output.float(), dim=-1)
        return made.last_hidden_state, vectors

    def look(self, pixels: Tensor) -> Tensor:
        """Return unit vectors of images, (B, 128)."""
        images = self.image(pixel_values=pixels).image_embeds
        return F.normalize(images.float(), dim=-1)


def build_clip(work_dir: Path) -> ClipPair:
    """Return an untrained pair for the trained tokenizer."""
    tokenizer = load_tokenizer(work_dir)
    with seeded(SEED):
        pair = ClipPair(
            len(tokenizer),
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            name_id(tokenizer),
        )
    # On the CPU the fused attention's backward is the slowest part of a step.
    pair.text.set_attn_implementation('eager')
    pair.image.set_attn_implementation('eager')
    return pair.to(device())


def load_clip(work_dir: Path) -> ClipPair:
    """Return the trained pair, frozen."""
    pair = build_clip(work_dir).eval().requires_grad_(False)
    pair.load_state_dict(load(work_dir / 'clip.pth')['model'])
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


class Doubles:
    """Finds another individual of the same species and colour."""

    def __init__(self, groups: np.ndarray) -> None:
        self._groups = groups
        self._members = [
            np.flatnonzero(groups == group) for group in range(max(groups) + 1)
        ]

    def __call__(
        self, index: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return such a one for each of ``index`` (B,)."""
        return np.asarray(
            [rng.choice(self._members[self._groups[i]]) for i in index]
        )


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


class Batches:
    """The pictures with their captions, and what they are not."""

    def __init__(self, work_dir: Path, end: int, name: int) -> None:
        self._drawings = load_drawings(work_dir)
        self._ids = tokenize_all(work_dir)
        self._features, groups = everyone()
        self._near_misses = NearMisses(work_dir)
        self._doubles = Doubles(groups)
        self._end, self._name = end, name

    def _crop(self, ids: np.ndarray) -> Tensor:
        """Cut what is padding in all texts: causal, so nothing changes."""
        longest = int((ids != self._end).sum(1).max()) + 1
        cropped = torch.from_numpy(ids[:, :longest].astype(np.int64))
        return cropped.to(device())

    def __call__(
        self,
        index: np.ndarray,
        captions: np.ndarray,
        rng: np.random.Generator,
        misnamed: float = MISNAMED_SHARE,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the texts of pictures ``index`` (B,), and their near misses.

        Args:
            index: Of pictures.
            captions: Which of its captions to take for each.
            rng: Decides what is missed.
            misnamed: How often a name is exchanged where there is one.

        Returns:
            ids (2B, L), captions first; the features of whom each may name
            (2B, 57); and which captions have a near miss (B,).
        """
        ids = self._ids[index, captions]
        missed, found = self._near_misses(ids, rng)
        swap = (ids == self._name).any(1)
        swap &= rng.random(len(ids)) < misnamed
        missed[swap] = ids[swap]
        others = np.where(swap, self._doubles(index, rng), index)
        who = self._features[np.concatenate([index, others])]
        return (
            self._crop(np.concatenate([ids, missed])),
            torch.from_numpy(who).to(device()),
            torch.from_numpy(found | swap).to(device()),
        )

    def pixels(
        self, index: np.ndarray, rng: np.random.Generator | None = None
    ) -> Tensor:
        """Return the pictures, each moved a little by a generator."""
        if rng is None:
            return _normal(self._drawings[index])
        return _shifted(self._drawings[index], rng)


def _loss(
    pair: ClipPair, ids: Tensor, who: Tensor, found: Tensor, pixels: Tensor
) -> Tensor:
    """Contrastive loss with near misses, and how well names are kept."""
    count = len(pixels)
    with autocast():
        hidden, texts = pair.read(ids, who)
        images = pair.look(pixels)
        told = pair.who(hidden[:, -1])
    likeness = pair.scale.clamp(max=math.log(100)).exp() * images @ texts.T
    # (B, 2B): to captions, then to near misses; an unchanged one is none
    same = torch.cat([torch.zeros_like(found), ~found])
    right = torch.arange(count, device=likeness.device)
    contrast = 0.5 * (
        F.cross_entropy(likeness.masked_fill(same, -100.0), right)
        + F.cross_entropy(likeness[:, :count].T, right)
    )
    # The last position is what a tail of embeddings is: it too tells who.
    named = pair.named(ids)
    return contrast + WHO_WEIGHT * F.mse_loss(told[named].float(), who[named])


@torch.no_grad()
def _told_apart(batches: Batches, pair: ClipPair) -> str:
    """Shares of unseen pictures whose caption wins: of 128, of near misses."""
    rng = np.random.default_rng(SEED)
    best: list[bool] = []
    wins: dict[int, list[bool]] = {0: [], CAPTIONS - 1: []}
    for index in np.arange(COUNT - UNSEEN, COUNT).reshape(-1, 128):
        images = pair.look(batches.pixels(index))
        for which, won in wins.items():
            ids, who, found = batches(
                index, np.full(128, which), rng, misnamed=1.0
            )
            texts, missed = pair.read(ids, who)[1].chunk(2)
            likeness = images @ texts.T
            won += (likeness.diag() > (images * missed).sum(1))[found].tolist()
            if which == 0:
                right = torch.arange(128, device=likeness.device)
                best += (likeness.argmax(1) == right).tolist()
    words, names = (100 * np.mean(won) for won in wins.values())
    return (
        f'{100 * np.mean(best):.1f} % top-1 of 128, {words:.1f} % of near '
        f'misses and {names:.1f} % of names on unseen'
    )


def train_clip(work_dir: Path, minutes: float, log: Log) -> None:
    """Train for a budget of CPU time and save ``clip.pth``."""
    pair = build_clip(work_dir)
    tokenizer = load_tokenizer(work_dir)
    batches = Batches(work_dir, tokenizer.eos_token_id, name_id(tokenizer))

    def loss_of(rng: np.random.Generator, share: float) -> Tensor:
        index = rng.integers(0, COUNT - UNSEEN, BATCH)
        texts = batches(index, rng.integers(0, CAPTIONS, BATCH), rng)
        return _loss(pair, *texts, batches.pixels(index, rng))

    fit(
        'clip',
        pair,
        loss_of,
        work_dir,
        log,
        minutes=minutes,
        rate=PEAK_RATE,
        seed=SEED,
        watch=partial(_told_apart, batches),
        watch_every=300,
    )
