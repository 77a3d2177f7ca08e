"""One step of Textual Inversion at Stable Diffusion 1.x size, against a loop
that does what the field's common script does: it encodes the picture again,
holds the whole table of tokens trainable and restores the other rows.

    python tools/benchmarks/textual_inversion_step.py

Random weights, fp32, the device at hand, batch 1, 512x512 pictures. The U-Net
and the autoencoder are frozen on both sides, as in that script.
"""

from __future__ import annotations

from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
import torch.nn.functional as F
from common import Step, compare, device

PROMPT = 'a photo of a <cat-toy>'


def picture() -> torch.Tensor:
    """A random picture, (3, 512, 512) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 512, 512), generator=generator).byte()


def ours(folder: Path) -> Step:
    """A step of the package: the editor under MMEngine's optimizer."""
    from mmengine.logging import MessageHub
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import BaseDataElement

    from mmhiper.models import TextualInversion

    editor = TextualInversion(
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        placeholder_token='<cat-toy>',
        initialize_token='toy',
    ).to(device())
    optimizer = build_optim_wrapper(
        editor, dict(optimizer=dict(type='AdamW', lr=5e-4))
    )
    sample = BaseDataElement(metainfo=dict(prompts=(PROMPT,)))
    batch = dict(inputs=[picture()], data_samples=[sample])
    run = MessageHub.get_instance('benchmark')
    run.update_info_dict(dict(seed=0, iter=0))

    def step() -> None:
        run.update_info('iter', run.get_info('iter') + 1)
        editor.train_step(batch, optimizer)

    return step


def plain(folder: Path) -> Step:
    """A step of the common loop."""
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None
    ).to(device())
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    pipe.tokenizer.add_tokens(['<cat-toy>'])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    table = pipe.text_encoder.get_input_embeddings().weight
    table.requires_grad_(True)
    new = pipe.tokenizer.convert_tokens_to_ids('<cat-toy>')
    others = torch.arange(len(table), device=device()) != new
    before = table.detach().clone()
    optimizer = torch.optim.AdamW([table], lr=5e-4)
    pixels = picture()[None].to(device()).float() / 127.5 - 1
    scale = pipe.vae.config.scaling_factor

    def step() -> None:
        ids = pipe.tokenizer(
            PROMPT, padding='max_length', return_tensors='pt'
        ).input_ids.to(device())
        with torch.no_grad():
            latents = pipe.vae.encode(pixels).latent_dist.sample() * scale
        eps = torch.randn_like(latents)
        t = torch.randint(0, 1000, (1,), device=device())
        noised = pipe.scheduler.add_noise(latents, eps, t)
        made = pipe.unet(noised, t, pipe.text_encoder(ids)[0]).sample
        F.mse_loss(made, eps).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[others] = before[others]

    return step


if __name__ == '__main__':
    compare(__doc__.split('\n\n')[0], plain, ours)
