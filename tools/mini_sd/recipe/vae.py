"""Stage ``vae``: the autoencoder, eight pixels to a latent along each side.

Crops teach it most of what it needs at a quarter of the cost; the last part
of the budget goes to whole pictures, whose statistics differ. Stage
``decoder`` goes on with the decoder alone, whose latents then stay the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from .common import Log, autocast, compiled, device, fit, load, seeded
from .drawings import UNSEEN, load_drawings

SEED, DECODER_SEED = 11, 21
CROP, CROP_BATCH, FULL_BATCH = 64, 8, 2  # per process: many small steps
CROPS_SHARE = 0.6  # of the time budget
PEAK_RATE = 2e-3
EMA_DECAY = 0.999


def build_vae() -> AutoencoderKL:
    """Return an untrained autoencoder of 2.2 M parameters.

    Attention in the middle lets the whole picture share what 1024 latents
    can say of it.
    """
    with seeded(SEED):
        vae = AutoencoderKL(
            block_out_channels=(16, 48, 96, 96),
            down_block_types=('DownEncoderBlock2D',) * 4,
            up_block_types=('UpDecoderBlock2D',) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=128,
        )
    with torch.no_grad():  # begin with a posterior of std 0.05: at the usual
        vae.quant_conv.weight[4:] = 0  # 1 the noise drowns the latents, and
        vae.quant_conv.bias[4:] = -6  # the decoder learns to ignore them
    # On the CPU the fused attention's backward is slower than plain products.
    for part in (vae.encoder, vae.decoder):
        part.mid_block.attentions[0].set_processor(AttnProcessor())
    return vae.to(device(), memory_format=torch.channels_last)


def load_vae(work_dir: Path, name: str = 'autoencoder') -> AutoencoderKL:
    """Return the trained autoencoder with its measured scaling factor."""
    vae = build_vae().eval().requires_grad_(False)
    vae.load_state_dict(load(work_dir / f'{name}.pth')['model'])
    return vae


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Root mean square error of each picture, and L1 of its edges' error.

    The root, so that a drawing with much detail weighs neither as little as
    in a mean of logarithms (PSNR) nor as much as in one of squares.
    """
    error = made - wanted
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    root = (error.square().mean((1, 2, 3)) + 1e-6).sqrt().mean()
    return root + 0.25 * edges


def to_pixels(drawings: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) in [-1, 1], channels last."""
    pixels = torch.from_numpy(np.array(drawings))
    return pixels.to(device()).permute(0, 3, 1, 2).float() / 127.5 - 1


def _batch(
    drawings: np.ndarray, rng: np.random.Generator, whole: bool
) -> Tensor:
    """Pixels in [-1, 1]: whole pictures or crops, mirrored half the time."""
    size = drawings.shape[1] if whole else CROP
    count = FULL_BATCH if whole else CROP_BATCH
    index = rng.integers(0, len(drawings) - UNSEEN, count)
    corner = rng.integers(0, drawings.shape[1] - size + 1, (count, 2))
    return to_pixels(
        np.stack(
            [
                drawings[i, y : y + size, x : x + size][
                    :, :: rng.choice((-1, 1))
                ]
                for i, (y, x) in zip(index, corner, strict=True)
            ]
        )
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, drawings: np.ndarray, count: int = 64) -> float:
    """Mean PSNR in dB on the last ``count`` drawings, which are unseen."""
    pixels = to_pixels(drawings[-count:])
    made = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    error = (made.clamp(-1, 1) - pixels).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def train_vae(work_dir: Path, minutes: float, log: Log) -> None:
    """Train for a budget of wall time and save ``autoencoder.pth``.

    Args:
        work_dir: Holds the drawings; checkpoints go there.
        minutes: Budget; the learning rate falls to zero at its end.
        log: Where progress is told.
    """
    drawings = load_drawings(work_dir)
    vae = build_vae()
    autoencode = compiled(_Autoencode(vae))

    def loss_of(rng: np.random.Generator, share: float) -> Tensor:
        whole = share > CROPS_SHARE
        pixels = _batch(drawings, rng, whole)
        side = pixels.shape[-1] // 8
        noise = rng.standard_normal((len(pixels), 4, side, side), np.float32)
        with autocast():
            made, kl = autoencode(pixels, torch.from_numpy(noise).to(device()))
        return picture_loss(made.float(), pixels) + 1e-5 * kl

    fit(
        'autoencoder',
        vae,
        loss_of,
        work_dir,
        log,
        minutes=minutes,
        rate=PEAK_RATE,
        seed=SEED,
        ema_decay=EMA_DECAY,
        watch=lambda m: f'{psnr(m, drawings):.2f} dB on unseen',
    )


class _Autoencode(nn.Module):
    """Pixels -> (pixels made again, KL per latent)."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.vae.quant_conv(self.vae.encoder(pixels)).float()
        mean, logvar = moments.chunk(2, dim=1)  # (B, 4, h, w) each
        logvar = logvar.clamp(-30, 20)
        latents = mean + noise * (0.5 * logvar).exp()
        made = self.vae.decoder(self.vae.post_quant_conv(latents))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return made, kl


def train_decoder(work_dir: Path, minutes: float, log: Log) -> None:
    """Go on with the decoder alone and save ``decoder.pth``, a whole VAE.

    The encoder is frozen, so latents, and a U-Net trained on them, stay good.
    """
    drawings = load_drawings(work_dir)
    vae = load_vae(work_dir)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    autoencode = compiled(_Decode(vae))

    def loss_of(rng: np.random.Generator, share: float) -> Tensor:
        pixels = _batch(drawings, rng, whole=True)
        with autocast():
            made = autoencode(pixels)
        return picture_loss(made.float(), pixels)

    fit(
        'decoder',
        vae,
        loss_of,
        work_dir,
        log,
        minutes=minutes,
        rate=PEAK_RATE / 2,
        seed=DECODER_SEED,
        ema_decay=EMA_DECAY,
        watch=lambda m: f'{psnr(m, drawings):.2f} dB on unseen',
    )


class _Decode(nn.Module):
    """Pixels -> pixels made again from the posterior's mean."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            moments = self.vae.quant_conv(self.vae.encoder(pixels))
        mean = moments.chunk(2, dim=1)[0]  # (B, 4, h, w)
        return self.vae.decoder(self.vae.post_quant_conv(mean))
