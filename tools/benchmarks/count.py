"""Floating-point operations of the parts of a model, without computing them.

    python tools/benchmarks/count.py

Stable Diffusion 1.x and XL at their own sizes, batch 1, on PyTorch's meta
device, where tensors have a size and no numbers: neither weights nor time are
needed, and every machine prints the same. A multiplication and its addition
are two operations; norms, activations and sums are not counted, as PyTorch's
FlopCounterMode has it. The unit of the last column is a pass of the U-Net.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
from sizes import POSITIONS, SIZES, TINY, Size
from torch.utils.flop_counter import FlopCounterMode

META = torch.device('meta')


def operations(call: Callable[[], Any]) -> int:
    """What a call takes."""
    with FlopCounterMode(display=False) as counted:
        call()
    return int(counted.get_total_flops())


def count(size: Size) -> dict[str, int]:
    """Operations by what they are of."""
    import diffusers

    with META:
        unet = diffusers.UNet2DConditionModel(**size.unet)
        vae = diffusers.AutoencoderKL(
            block_out_channels=size.levels,
            down_block_types=('DownEncoderBlock2D',) * len(size.levels),
            up_block_types=('UpDecoderBlock2D',) * len(size.levels),
            layers_per_block=2,
        )
        latents = torch.empty(1, 4, size.side, size.side)
        text = torch.empty(1, POSITIONS, size.width, requires_grad=True)
        picture = torch.empty(1, 3, size.pixels, size.pixels)
        options: dict[str, Any] = {}
        if size.is_xl:
            options['added_cond_kwargs'] = dict(
                text_embeds=torch.empty(1, size.texts[-1][0]),
                time_ids=torch.empty(1, 6),
            )

    def predict() -> torch.Tensor:
        made: torch.Tensor = unet(
            latents, torch.tensor(1), text, return_dict=False, **options
        )[0]
        return made

    found = {}
    with torch.no_grad():
        found['U-Net'] = operations(predict)
        found['picture encoded'] = operations(lambda: vae.encode(picture))
        found['picture decoded'] = operations(lambda: vae.decode(latents))
    whole = operations(lambda: predict().sum().backward())
    unet.requires_grad_(False)
    found['a step, gradients of the text alone'] = operations(
        lambda: predict().sum().backward()
    )
    found['a step, gradients of all weights too'] = whole
    return found


def main(words: list[str] | None = None) -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tiny', action='store_true', help='rehearse')
    args = parser.parse_args(words)
    for name, size in (TINY if args.tiny else SIZES).items():
        found = count(size)
        print(f'\n{name}, {size.pixels} pixels')
        for what, number in found.items():
            ratio = number / found['U-Net']
            print(f'{what:40s}{number / 1e12:9.3f} T{ratio:8.2f}')


if __name__ == '__main__':
    main()
