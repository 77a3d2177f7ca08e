"""One optimisation step of HiPer at Stable Diffusion 1.x size, against a loop
that leaves the U-Net's weight gradients on, as the official code does.

    python tools/benchmarks/hiper_step.py

Random weights, fp32, the device at hand, batch 1, 64x64 latents. Each side
runs in a process of its own, so that neither's memory counts for the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

N_HIPER, POSITIONS, WIDTH = 5, 77, 768


def make_folder(folder: Path) -> None:
    """Write a Stable Diffusion 1.x with random weights (half precision)."""
    import diffusers
    import transformers

    bundled = Path(__file__).parents[2] / 'mmhiper/pretrained/mini-sd'
    tokenizer = transformers.CLIPTokenizer.from_pretrained(
        bundled / 'tokenizer'
    )
    text_config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    levels = (128, 256, 512, 512)
    diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=WIDTH
        ),
        vae=diffusers.AutoencoderKL(
            block_out_channels=levels,
            down_block_types=('DownEncoderBlock2D',) * len(levels),
            up_block_types=('UpDecoderBlock2D',) * len(levels),
            layers_per_block=2,
            sample_size=512,
        ),
        text_encoder=transformers.CLIPTextModel(text_config),
        tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule='scaled_linear',
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(torch.float16).save_pretrained(folder)


class PeakMemory:
    """The largest memory seen inside the ``with`` block, in GiB.

    Device memory on CUDA; elsewhere the process's resident memory, sampled
    every 20 ms.
    """

    def __enter__(self) -> PeakMemory:
        self.gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.gib = max(self.gib, self._now())

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**30
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return pages * 4096 / 2**30

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def ours(folder: Path) -> Callable[[], None]:
    """A step of the package: the editor under MMEngine's optimizer."""
    from mmengine.logging import MessageHub
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import BaseDataElement

    from mmhiper.models import HiPer

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    editor = HiPer(
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        source_text='a standing dog',
        n_hiper=N_HIPER,
    ).to(device)
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


def plain(folder: Path) -> Callable[[], None]:
    """A step of a loop that trains the tail and freezes nothing."""
    import diffusers

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    unet = diffusers.UNet2DConditionModel.from_pretrained(
        folder, subfolder='unet', torch_dtype=torch.float32
    ).to(device)
    scheduler = diffusers.DDIMScheduler.from_pretrained(
        folder, subfolder='scheduler'
    )
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latents = noise(1, 4, 64, 64)
    content = noise(1, POSITIONS - N_HIPER, WIDTH)
    tail = noise(1, N_HIPER, WIDTH).requires_grad_()
    optimizer = torch.optim.Adam([tail], lr=5e-3)

    def step() -> None:
        eps = noise(*latents.shape)
        t = torch.randint(0, 1000, (1,), generator=generator).to(device)
        noised = scheduler.add_noise(latents, eps, t)
        made = unet(noised, t, torch.cat([content, tail], dim=1)).sample
        loss = F.mse_loss(made, eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(side: str, folder: Path, steps: int) -> dict[str, float]:
    """Seconds per step (median) and peak memory of the steps."""
    step = dict(ours=ours, plain=plain)[side](folder)
    step()  # caches, allocations
    seconds = []
    with PeakMemory() as memory:
        for _ in range(steps):
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return dict(seconds=statistics.median(seconds), gib=memory.gib)


def main() -> None:
    """Measure both sides, each in its own process, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument('--side', choices=('ours', 'plain'))
    parser.add_argument('--folder', type=Path, help='a model to reuse')
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.folder, args.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / 'model_index.json').exists():
            make_folder(folder)
        results = {}
        for side in ('plain', 'ours'):
            command = [sys.executable, __file__, '--side', side]
            command += ['--folder', str(folder), '--steps', str(args.steps)]
            output = subprocess.run(
                command, check=True, capture_output=True, text=True
            ).stdout
            results[side] = json.loads(output.splitlines()[-1])
            print(
                f'{side:6s} {results[side]["seconds"]:.2f} s per step, '
                f'{results[side]["gib"]:.2f} GiB peak'
            )
    ratio = results['plain']['seconds'] / results['ours']['seconds']
    print(f'ours is {ratio:.2f} times as fast')


if __name__ == '__main__':
    main()
