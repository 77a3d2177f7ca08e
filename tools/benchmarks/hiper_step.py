"""One optimisation step of HiPer at Stable Diffusion 1.x size, against a loop
that leaves the U-Net's weight gradients on, as the official code does.

    python tools/benchmarks/hiper_step.py

Random weights, fp32, the device at hand, batch 1, 64x64 latents. Each side
runs in a process of its own, so that neither's memory counts for the other.
"""

from __future__ import annotations

from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
import torch.nn.functional as F
from common import WIDTH, Step, compare, device
from sizes import POSITIONS

N_HIPER = 5


def ours(folder: Path) -> Step:
    """A step of the package: the editor under MMEngine's optimizer."""
    from mmengine.logging import MessageHub
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import BaseDataElement

    from mmhiper.models import HiPer

    editor = HiPer(
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        source_text='a standing dog',
        n_hiper=N_HIPER,
    ).to(device())
    optimizer = build_optim_wrapper(
        editor, dict(optimizer=dict(type='Adam', lr=5e-3))
    )
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, 512, 512), generator=generator)
    sample = BaseDataElement(metainfo=dict(image_index=0, img_path='random'))
    batch = dict(inputs=[picture.byte()], data_samples=[sample])

    run = MessageHub.get_instance('benchmark')
    run.update_info_dict(dict(seed=0, iter=0))

    def step() -> None:
        run.update_info('iter', run.get_info('iter') + 1)
        editor.train_step(batch, optimizer)

    return step


def plain(folder: Path) -> Step:
    """A step of a loop that trains the tail and freezes nothing."""
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(
        folder, subfolder='unet', torch_dtype=torch.float32
    ).to(device())
    scheduler = diffusers.DDIMScheduler.from_pretrained(
        folder, subfolder='scheduler'
    )
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device())

    latents = noise(1, 4, 64, 64)
    content = noise(1, POSITIONS - N_HIPER, WIDTH)
    tail = noise(1, N_HIPER, WIDTH).requires_grad_()
    optimizer = torch.optim.Adam([tail], lr=5e-3)

    def step() -> None:
        eps = noise(*latents.shape)
        t = torch.randint(0, 1000, (1,), generator=generator).to(device())
        noised = scheduler.add_noise(latents, eps, t)
        made = unet(noised, t, torch.cat([content, tail], dim=1)).sample
        loss = F.mse_loss(made, eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == '__main__':
    compare(__doc__.split('\n\n')[0], plain, ours)
