"""How near two pictures are, and pictures side by side."""

from __future__ import annotations

import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of pictures (B, 3, H, W) in [-1, 1]."""
    error = (a - b).square().mean((1, 2, 3)).clamp_min(1e-12)
    return 10 * torch.log10(4 / error)


def label(image: Image.Image, text: str) -> Image.Image:
    """Put a caption of at most three lines under a picture."""
    font = ImageFont.load_default(max(9, image.width // 13))
    wrap = textwrap.wrap(text, 24)[:3]
    panel = Image.new('RGB', (image.width, image.height * 4 // 3), 'white')
    panel.paste(image)
    place = (3, image.height + 2)
    ImageDraw.Draw(panel).text(place, '\n'.join(wrap), 'black', font)
    return panel


def sheet(images: list[Image.Image], columns: int) -> Image.Image:
    """Lay pictures of one size out as a grid."""
    w, h = images[0].size
    rows = -(-len(images) // columns)
    grid = Image.new('RGB', (columns * w, rows * h), 'white')
    for i, image in enumerate(images):
        grid.paste(image, (i % columns * w, i // columns * h))
    return grid
