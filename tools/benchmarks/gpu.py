"""A training on one GPU: steps, runs, memory, share of the device's own rate.

    bash tools/benchmarks/gpu.sh

Parts, each in a process of its own:

- the rate at which the device multiplies square matrices
- a step of HiPer, per batch size: this package (bf16 weights), the same with
  ``sd.compile=True``, and a plain loop that follows the official code (weights
  in fp32 with their gradients, autocast to bf16)
- a run of 1200 steps from command to end, and as many of the plain loop
- one step of Textual Inversion and of StyleDiffusion beside plain loops, by
  their own benchmarks in this folder
- a profile of three steps

A batch is so many draws of one picture (``draws_per_step``). The share is that
of the rate at which matrices of 8192 are multiplied in bf16; operations are
counted by PyTorch's FlopCounterMode, those of our step without gradients of
the weights, for both sides: so it tells how fast the same result is reached.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
import torch.nn.functional as F
from common import PeakMemory, Step, device
from sizes import POSITIONS, SIZES, TINY, Size, make_model

HERE = Path(__file__).parent
N_HIPER = 5
BATCHES = {'sd1': (1, 4, 16, 64), 'sdxl': (1, 4)}
# What is compiled per batch size, so only what is asked about most.
COMPILED = {'sd1': (1, 8), 'sdxl': (1,)}
RUN_STEPS = 1200
Found = dict[str, Any]


def sizes(args: argparse.Namespace) -> dict[str, Size]:
    """The models of this measurement."""
    return TINY if args.tiny else SIZES


# ------------------------------------------------------------------ both sides
def plain_step(folder: Path, size: Size, batch: int) -> Step:
    """A step of the official loop: weights have gradients, under autocast."""
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(
        folder, subfolder='unet', torch_dtype=torch.float32
    ).to(device())
    scheduler = diffusers.DDIMScheduler.from_pretrained(
        folder, subfolder='scheduler'
    )
    latents = torch.randn(batch, 4, size.side, size.side, device=device())
    content = torch.randn(1, POSITIONS - N_HIPER, size.width, device=device())
    tail = torch.randn(1, N_HIPER, size.width, device=device())
    tail.requires_grad_()
    options: dict[str, Any] = {}
    if size.is_xl:
        options['added_cond_kwargs'] = dict(
            text_embeds=torch.randn(batch, size.texts[-1][0], device=device()),
            time_ids=torch.full((batch, 6), 1.0, device=device()),
        )
    optimizer = torch.optim.Adam([tail], lr=5e-3)

    def step() -> None:
        eps = torch.randn_like(latents)
        t = torch.randint(0, 1000, (batch,), device=device())
        noised = scheduler.add_noise(latents, eps, t)
        text = torch.cat([content, tail], 1).expand(batch, -1, -1)
        with torch.autocast(device(), torch.bfloat16):
            made = unet(noised, t, text, **options).sample
        F.mse_loss(made.float(), eps).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(
    folder: Path,
    size: Size,
    batch: int,
    compiled: bool = False,
    dtype: str = 'bf16',
) -> Step:
    """A step of this package, under MMEngine's optimizer."""
    from mmengine.logging import MessageHub
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import BaseDataElement

    from mmhiper.engine.fused import with_fused_step
    from mmhiper.models import HiPer

    editor = HiPer(
        sd=dict(
            type='StableDiffusion', pretrained=str(folder), dtype=dtype,
            offload=True,  # what is idle while the U-Net trains
            compile=compiled,
        ),
        source_text='a standing dog',
        n_hiper=N_HIPER,
        draws_per_step=batch,
    ).to(device())  # fmt: skip
    adam = dict(optimizer=dict(type='Adam', lr=5e-3))
    optimizer = build_optim_wrapper(editor, dict(with_fused_step(adam)))
    pixels = torch.randint(0, 256, (3, size.pixels, size.pixels))
    sample = BaseDataElement(metainfo=dict(image_index=0, img_path='random'))
    data = dict(inputs=[pixels.byte()], data_samples=[sample])
    run = MessageHub.get_instance('benchmark')
    run.update_info_dict(dict(seed=0, iter=0))

    def step() -> None:
        run.update_info('iter', run.get_info('iter') + 1)
        editor.train_step(data, optimizer)

    return step


# ------------------------------------------------------------------- measuring
def wait() -> None:
    """Until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(step: Step, seconds: float = 4.0, rounds: int = 3) -> float:
    """Seconds per step: the median of some rounds, without waits inside."""
    step()
    wait()
    start = time.perf_counter()
    step()
    wait()
    once = time.perf_counter() - start
    count = max(1, int(seconds / rounds / once))
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        found.append((time.perf_counter() - start) / count)
    return statistics.median(found)


def measure_rate(args: argparse.Namespace) -> Found:
    """Floating-point operations per second of a product of matrices."""
    side = 512 if args.tiny else 8192
    kinds = (torch.bfloat16, torch.float32)
    return {str(k).removeprefix('torch.'): rate_of(k, side) for k in kinds}


def rate_of(dtype: torch.dtype, side: int) -> float:
    """The same in one precision."""
    a, b = torch.randn(2, side, side, device=device()).to(dtype)

    def multiply() -> None:
        torch.mm(a, b)

    return 2 * side**3 / timed(multiply, 2.0)


def count_flops(step: Step) -> int:
    """The operations of a step."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        step()
    return int(counted.get_total_flops())


def measure_steps(args: argparse.Namespace) -> Found:
    """Seconds, memory and operations per batch size, while there is time."""
    size = sizes(args)[args.size]
    compiled = args.side == 'compiled'
    batches = (COMPILED if compiled else BATCHES)[args.size]
    end = time.monotonic() + args.seconds
    rows: list[Found] = []
    for batch in batches[: 2 if args.tiny else None]:
        if time.monotonic() > end:
            rows.append(dict(batch=batch, left_out='no time'))
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            if args.side == 'plain':
                step = plain_step(args.folder, size, batch)
            else:
                step = our_step(args.folder, size, batch, compiled)
            first = time.perf_counter()
            step()
            wait()
            first = time.perf_counter() - first
            row = dict(batch=batch, first_seconds=first)
            if args.side == 'ours':
                row['flops'] = count_flops(step)
            with PeakMemory() as memory:
                row['seconds'] = timed(step, 0.3 if args.tiny else 4.0)
            row['gib'] = memory.gib
            rows.append(row)
        except torch.OutOfMemoryError:
            rows.append(dict(batch=batch, left_out='out of memory'))
        step = None  # type: ignore[assignment]
        print(json.dumps(rows), flush=True)
    return dict(rows=rows)


def measure_run(args: argparse.Namespace) -> Found:
    """A run of HiPer from command to end, previews included."""
    steps = 20 if args.tiny else RUN_STEPS
    values = {
        'model.sd.pretrained': args.folder,
        'model.sd.without_cuda': None,
        'model.sd.dtype': 'bf16',
        'train_cfg.max_iters': steps,
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work_dir:
        words = ['train', 'hiper/dog', '--work-dir', work_dir]
        words += ['--cfg-options']
        words += [f'{name}={value}' for name, value in values.items()]
        subprocess.run([sys.executable, '-m', 'mmhiper', *words], check=True)
    return dict(steps=steps, seconds=time.perf_counter() - start)


def measure_plain_run(args: argparse.Namespace) -> Found:
    """As many steps of the plain loop, from its start; nothing is saved."""
    steps = 20 if args.tiny else RUN_STEPS
    start = time.perf_counter()
    step = plain_step(args.folder, sizes(args)[args.size], 1)
    for _ in range(steps):
        step()
    wait()
    return dict(steps=steps, seconds=time.perf_counter() - start)


def measure_profile(args: argparse.Namespace) -> Found:
    """Where the time of three steps goes, kernel by kernel."""
    from torch.profiler import ProfilerActivity, profile

    step = our_step(args.folder, sizes(args)[args.size], 1)
    for _ in range(3):
        step()
    wait()
    kinds = [ProfilerActivity.CPU]
    key = 'self_cpu_time_total'
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
        key = 'self_cuda_time_total'
    with profile(activities=kinds) as found:
        for _ in range(3):
            step()
        wait()
    table = found.key_averages().table(sort_by=key, row_limit=25)
    return dict(table=table)


PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    'rate': measure_rate,
    'steps': measure_steps,
    'run': measure_run,
    'plain_run': measure_plain_run,
    'profile': measure_profile,
}


# ------------------------------------------------------------------- the whole
class Measurement:
    """Runs parts while there is time, and writes what is known."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.folder = folder
        self.end = time.monotonic() + 60 * args.minutes
        self.report: Found = dict(
            device=device_name(), torch=torch.__version__, tiny=args.tiny
        )

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic() - 5

    def make(self, name: str) -> None:
        """Write a model, if it is not there."""
        folder = self.folder / name
        if not (folder / 'model_index.json').exists():
            start = time.monotonic()
            make_model(folder, sizes(self.args)[name], device())
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(f'made {name} in {time.monotonic() - start:.0f} s')

    def child(self, key: str, part: str, most: float, **options: Any) -> None:
        """Run a part in a process; what it printed last is its result."""
        words = [sys.executable, __file__, '--part', part]
        for name, value in options.items():
            words += [f'--{name}', str(value)]
        words += ['--seconds', str(min(most, self.left) * 0.6)]
        words += ['--tiny'] if self.args.tiny else []
        self.command(key, words, most, json.loads)

    def command(
        self, key: str, words: list[str], most: float, read: Callable
    ) -> None:
        """Run a command within the time that is left, and note its result."""
        limit = min(most, self.left)
        if limit < 5:
            self.report[key] = dict(left_out='no time')
            return self.write()
        print(f'{key} (at most {limit:.0f} s) ...', flush=True)
        with (
            tempfile.TemporaryFile('w+') as out,
            tempfile.TemporaryFile('w+') as errors,
        ):
            reason = ''
            try:
                code = subprocess.run(
                    words, stdout=out, stderr=errors, timeout=limit
                ).returncode
                errors.seek(0)
                reason = f'it failed: {errors.read()[-400:]}' if code else ''
            except subprocess.TimeoutExpired:
                reason = 'no time'
            out.seek(0)
            text = out.read().strip()
        try:
            found = read(text.splitlines()[-1])
        except (IndexError, ValueError):
            found = dict(left_out=reason or 'it printed no result')
        if isinstance(found, list):  # of steps, as far as they came
            found = dict(rows=found)
        if reason and 'left_out' not in found:
            found['cut_off'] = reason
        self.report[key] = found
        self.write()

    def write(self) -> None:
        """Write the reports."""
        out = self.args.out
        out.mkdir(parents=True, exist_ok=True)
        profile = self.report.get('profile', {}).get('table')
        if profile:
            (out / 'profile.txt').write_text(profile)
        (out / 'report.json').write_text(json.dumps(self.report, indent=1))
        (out / 'report.txt').write_text(describe(self.report))


def device_name() -> str:
    """Of the GPU; of a machine without one, the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return f'CPU ({capability}, {os.cpu_count()} cores)'


def describe(report: Found) -> str:
    """The report as text."""
    lines = [f'{report["device"]}, torch {report["torch"]}']
    if report['tiny']:
        lines.append('A rehearsal with tiny models: no number means anything.')
    rate = report.get('rate', {}).get('bfloat16')
    if rate:
        lines.append(f'Matrix products in bf16: {rate / 1e12:.1f} TFLOP/s')
    for key, found in report.items():
        if not isinstance(found, dict) or key in ('rate', 'profile'):
            continue
        lines += ['', key]
        if 'rows' in found:
            lines += describe_steps(key, report, rate)
        else:
            lines += [
                f'  {name}: {value:.2f}'
                if isinstance(value, float)
                else f'  {name}: {value}'
                for name, value in found.items()
            ]
    runs = [report.get(key, {}) for key in ('run sd1', 'plain run sd1')]
    if all('seconds' in run for run in runs):
        ratio = runs[1]['seconds'] / runs[0]['seconds']
        lines += ['', f'From command to end: {ratio:.2f} times as fast']
    return '\n'.join(lines) + '\n'


def describe_steps(key: str, report: Found, rate: float | None) -> list[str]:
    """A line per batch size: time, memory, share of the rate, ratio."""
    *_, name = key.split()
    ours = rows_of(report, f'ours {name}')
    plain = rows_of(report, f'plain {name}')
    lines = []
    for batch, row in rows_of(report, key).items():
        if 'seconds' not in row:
            lines.append(f'  batch {batch}: {row["left_out"]}')
            continue
        words = [
            f'batch {batch}: {1000 * row["seconds"]:.2f} ms per step',
            f'{1000 * row["seconds"] / batch:.2f} per draw',
            f'{row["gib"]:.2f} GiB at the peak',
            f'first step {row["first_seconds"]:.1f} s',
        ]
        one = ours.get(1, {}).get('flops')
        if rate and one:
            share = one * batch / row['seconds'] / rate
            words.append(f'{100 * share:.1f} % of the rate')
        slow = plain.get(batch, {}).get('seconds')
        if slow and not key.startswith('plain'):
            words.append(f'{slow / row["seconds"]:.2f} times the plain loop')
        lines.append('  ' + ', '.join(words))
    return lines


def rows_of(report: Found, key: str) -> dict[int, Found]:
    """The rows of steps by their batch sizes."""
    rows = report.get(key, {}).get('rows', [])
    return {row['batch']: row for row in rows}


def measure_all(args: argparse.Namespace, folder: Path) -> Found:
    """All parts, what is asked about most first."""
    whole = Measurement(args, folder)
    scale = args.minutes / 9
    whole.child('rate', 'rate', 30 * scale)
    whole.make('sd1')
    common = dict(folder=folder / 'sd1', size='sd1')
    for side, most in (('ours', 75), ('plain', 75)):
        whole.child(f'{side} sd1', 'steps', most * scale, side=side, **common)
    whole.child('run sd1', 'run', 90 * scale, **common)
    whole.child('plain run sd1', 'plain_run', 120 * scale, **common)
    whole.child('profile', 'profile', 40 * scale, **common)
    if not args.without_compiling:
        whole.child(
            'compiled sd1', 'steps', 120 * scale, side='compiled', **common
        )
    whole.make('sdxl')
    common = dict(folder=folder / 'sdxl', size='sdxl')
    for side in ('ours', 'plain'):
        whole.child(f'{side} sdxl', 'steps', 80 * scale, side=side, **common)
    if not args.tiny:  # which have the size of Stable Diffusion 1.x inside
        for name in ('textual_inversion_step', 'style_diffusion_step'):
            words = [sys.executable, str(HERE / f'{name}.py')]
            if name.startswith('textual'):
                words += ['--folder', str(folder / 'sd1')]
            whole.command(name, words, 60, lambda line: dict(says=line))
    return whole.report


def main(words: list[str] | None = None) -> None:
    """Measure, print the report, say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'))
    parser.add_argument('--minutes', type=float, default=9.0)
    parser.add_argument(
        '--tiny', action='store_true', help='rehearse, with tiny models'
    )
    parser.add_argument('--without-compiling', action='store_true')
    parser.add_argument('--part', choices=PARTS, help='used by itself')
    parser.add_argument('--side', choices=('ours', 'plain', 'compiled'))
    parser.add_argument('--size', choices=SIZES, default='sd1')
    parser.add_argument('--folder', type=Path)
    parser.add_argument('--seconds', type=float, default=60.0)
    args = parser.parse_args(words)
    if args.part:
        print(json.dumps(PARTS[args.part](args)), flush=True)
        return
    with tempfile.TemporaryDirectory() as temporary:
        report = measure_all(args, args.folder or Path(temporary))
    print(describe(report))
    print(f'Reports in {args.out}')


if __name__ == '__main__':
    main()
