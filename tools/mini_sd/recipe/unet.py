"""Stage ``unet``: the denoiser, on latents and embeddings computed before."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image, ImageDraw
from torch import Tensor, nn

from .clip import WIDTH, load_clip
from .common import Log, autocast, compiled, device, fit, seeded
from .drawings import UNSEEN
from .encode import scaling_factor
from .tokenizer import POSITIONS, load_tokenizer
from .vae import load_vae

SEED = 13
BATCH = 32  # per process
RATE = 6e-4
EMA_DECAY = 0.999  # over 64,000 samples of two processes
EMPTY_SHARE = 0.1  # of contexts, for guidance
MIXED_SHARE = 0.3  # of contexts
CUT_SHARE = 0.1  # of contexts
STEPS = 1000  # of the noise schedule
GAMMA = 5.0  # of min-SNR (arXiv 2303.09556)

PROMPTS = (
    'a standing dog',
    'a sitting dog',
    'a lying cat',
    'a jumping cat',
    'a white dog on the grass',
    'a black cat in the snow',
    'a ginger striped cat sitting on the beach with white stripes',
    'a brown dog at night with a red collar',
    'a sitting gray dog in a room wearing a blue hat',
    'a golden dog jumping on the beach with a red ball',
    'a cream spotted dog lying on the grass with big black spots',
    'a white cat with black ears sitting in a room with a green scarf',
    'a yellow toy robot standing on grass with green hands',
    'a pencil sketch of a sitting dog with floppy ears',
    'a brown cat with white paws and a white chest standing in the snow',
    'a dark gray cat with a curly tail and an eye patch at night',
)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule='scaled_linear',
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type='v_prediction',
    )


def build_unet() -> UNet2DConditionModel:
    """Return an untrained U-Net for 16x16 latents.

    Few channels where there are many positions, and on the way up no
    attention there: what decides the quality is how many samples are seen.
    """
    with seeded(SEED):
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(48, 112, 160),
            down_block_types=('CrossAttnDownBlock2D',) * 3,
            up_block_types=(
                'CrossAttnUpBlock2D',
                'CrossAttnUpBlock2D',
                'UpBlock2D',
            ),
            layers_per_block=1,
            attention_head_dim=(1, 2, 4),  # in truth the number of heads
            cross_attention_dim=WIDTH,
            norm_num_groups=16,
        )
    # On the CPU the fused attention's backward is slower than plain products.
    unet.set_attn_processor(AttnProcessor())
    return unet.to(device(), memory_format=torch.channels_last)


class Contexts:
    """Draws what the U-Net reads beside each latent.

    Mostly a caption's embedding; one in ten times the empty text's. Three in
    ten times the positions from a random one on are those of *another*
    caption of the same drawing, half the time of the one with a name: so the
    U-Net learns to read every position, the last ones too, as a statement
    that holds by itself, and what words there carry, embeddings can carry.
    One in ten times they are those of the empty text, which leave it to the
    first ones to say everything.
    """

    def __init__(self, work_dir: Path) -> None:
        self._texts = np.load(work_dir / 'texts.npy', mmap_mode='r')
        self._empty = np.load(work_dir / 'empty.npy')

    def __call__(self, index: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Return embeddings (B, 77, 128) for the drawings ``index`` (B,)."""
        captions = self._texts.shape[1]
        contexts = np.empty((len(index), *self._empty.shape), np.float16)
        for k, i in enumerate(index):
            draw = rng.random()
            first, second = rng.permutation(captions)[:2]
            if rng.random() < 0.5:
                second = captions - 1  # with a name
            if draw < EMPTY_SHARE:
                contexts[k] = self._empty
                continue
            contexts[k] = self._texts[i, first]
            draw -= EMPTY_SHARE
            cut = _cut(rng)
            if draw < MIXED_SHARE:
                contexts[k, cut:] = self._texts[i, second, cut:]
            elif draw < MIXED_SHARE + CUT_SHARE:
                contexts[k, cut:] = self._empty[cut:]
        return torch.from_numpy(contexts).to(device()).float()


def _cut(rng: np.random.Generator) -> int:
    """Where the other statement begins: anywhere, or near the end."""
    if rng.random() < 0.5:
        return int(rng.integers(5, POSITIONS))
    return POSITIONS - int(rng.integers(1, 21))


class Noised:
    """Latents with noise, and how well a U-Net tells what was added."""

    def __init__(self, work_dir: Path) -> None:
        self.latents = np.load(work_dir / 'latents.npy', mmap_mode='r')
        self._scale = scaling_factor(work_dir)
        self._contexts = Contexts(work_dir)
        self._scheduler = build_scheduler()
        self._abar = self._scheduler.alphas_cumprod.to(device())

    def losses(
        self,
        unet: Any,
        index: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
    ) -> Tensor:
        """Return the weighted error of the velocity for each drawing, (B,).

        Args:
            unet: The U-Net, plain or compiled.
            index: Of drawings, (B,).
            times: Timesteps in [0, STEPS), (B,).
            rng: Draws noise and contexts.
        """
        clean = torch.from_numpy(self.latents[index]).to(device()).float()
        clean = clean * self._scale
        noise = torch.from_numpy(
            rng.standard_normal(clean.shape, np.float32)
        ).to(device())
        at = torch.from_numpy(times).to(device())
        noisy = self._scheduler.add_noise(clean, noise, at)
        wanted = self._scheduler.get_velocity(clean, noise, at)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with autocast():
            made = unet(noisy, at, self._contexts(index, rng)).sample
        snr = self._abar[at] / (1 - self._abar[at])
        weight = snr.clamp(max=GAMMA) / (snr + 1)  # for v: over snr + 1
        return weight * (made.float() - wanted).square().mean((1, 2, 3))

    @torch.no_grad()
    def unseen(self, unet: nn.Module) -> float:
        """Return the mean loss on all unseen drawings, always the same noise.

        Every drawing has a timestep of its own, evenly spread.
        """
        unet.eval()
        rng = np.random.default_rng(SEED)
        index = np.arange(len(self.latents) - UNSEEN, len(self.latents))
        times = np.linspace(0, STEPS - 1, UNSEEN).round().astype(int)
        rng.shuffle(times)
        losses = [
            self.losses(unet, some, at, rng)
            for some, at in zip(
                index.reshape(-1, BATCH), times.reshape(-1, BATCH), strict=True
            )
        ]
        unet.train()
        return float(torch.cat(losses).mean())


def train_unet(work_dir: Path, minutes: float, log: Log) -> None:
    """Train at a constant rate and save the EMA as ``unet.pth``."""
    _train('unet', work_dir, minutes, log, falls=False)


def anneal_unet(work_dir: Path, minutes: float, log: Log) -> None:
    """Go on at a falling rate and save the EMA as ``annealed.pth``.

    The state of `train_unet` stays as it is, to go on from another time.
    """
    _train('annealed', work_dir, minutes, log, begin='unet')


def evenly(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch of timesteps, and weights that undo an uneven draw.

    Returns:
        (B,) in [0, STEPS), and (B,) ones.
    """
    return rng.integers(0, STEPS, BATCH), np.ones(BATCH)


def _train(
    name: str,
    work_dir: Path,
    minutes: float,
    log: Log,
    draw_times: Callable[..., tuple[np.ndarray, np.ndarray]] = evenly,
    **schedule: Any,
) -> None:
    unet = build_unet()
    fast = compiled(unet)
    data = Noised(work_dir)
    painter = Painter(work_dir)

    def loss_of(rng: np.random.Generator, share: float) -> Tensor:
        index = rng.integers(0, len(data.latents) - UNSEEN, BATCH)
        times, weights = draw_times(rng)
        losses = data.losses(fast, index, times, rng)
        return (losses * torch.from_numpy(weights).to(losses)).mean()

    def watch(model: nn.Module) -> str:
        return f'{data.unseen(model):.5f} on unseen, {painter.sheets(model)}'

    fit(
        name,
        unet,
        loss_of,
        work_dir,
        log,
        minutes=minutes,
        rate=RATE,
        seed=SEED,
        ema_decay=EMA_DECAY,
        watch=watch,
        watch_every=20 * 60,
        **schedule,
    )


class Painter:
    """Draws sample sheets of fixed prompts from fixed noise."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        tokenizer = load_tokenizer(work_dir)
        encoder = load_clip(work_dir).text
        ids = tokenizer(
            [*PROMPTS, ''], padding='max_length', return_tensors='pt'
        )['input_ids']
        with torch.no_grad():
            hidden = encoder(input_ids=ids.to(device())).last_hidden_state
        self._texts, self._empty = hidden[:-1], hidden[-1:]

    @torch.no_grad()
    def paint(
        self, unet: nn.Module, guidance: float, steps: int = 20
    ) -> np.ndarray:
        """Return pictures of all prompts, (16, 128, 128, 3) uint8."""
        scheduler = build_scheduler()
        scheduler.set_timesteps(steps)
        count = len(self._texts)
        latents = torch.randn(
            (count, 4, 16, 16), generator=torch.Generator().manual_seed(0)
        ).to(device())
        both = torch.cat([self._texts, self._empty.expand(count, -1, -1)])
        for time_step in scheduler.timesteps:
            with autocast():
                made, plain = (
                    unet(torch.cat([latents, latents]), time_step, both)
                    .sample.float()
                    .chunk(2)
                )
            made = plain + guidance * (made - plain)
            latents = scheduler.step(made, time_step, latents).prev_sample
        vae = load_vae(self._work_dir)
        pixels = vae.decode(latents / scaling_factor(self._work_dir)).sample
        pixels = (pixels.clamp(-1, 1) * 127.5 + 127.5).round()
        return pixels.byte().permute(0, 2, 3, 1).cpu().numpy()

    def sheets(self, unet: nn.Module) -> str:
        """Save one sheet for each guidance and return their names."""
        folder = self._work_dir / 'samples'
        folder.mkdir(exist_ok=True)
        unet.eval()
        names = []
        for guidance in (3.0, 7.5):
            sheet = Image.new('RGB', (4 * 200, 4 * 172), 'white')
            pen = ImageDraw.Draw(sheet)
            for k, picture in enumerate(self.paint(unet, guidance)):
                x, y = k % 4 * 200, k // 4 * 172
                sheet.paste(Image.fromarray(picture), (x + 36, y + 2))
                half = PROMPTS[k].rfind(' ', 0, 34)
                lines = (
                    [PROMPTS[k]]
                    if len(PROMPTS[k]) <= 34
                    else [PROMPTS[k][:half], PROMPTS[k][half + 1 :]]
                )
                pen.text((x + 4, y + 132), '\n'.join(lines), 'black')
            name = f'{time.strftime("%H%M")}_guidance{guidance}.png'
            sheet.save(folder / name)
            names.append(name)
        unet.train()
        return ' '.join(names)
