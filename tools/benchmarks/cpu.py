"""One step of HiPer on the CPU: where its time goes, and its memory.

    python tools/benchmarks/cpu.py

A model of the size of Stable Diffusion 1.x with random weights is made on the
spot (``--tiny`` for a rehearsal), in fp32 and, where the processor has it, in
bf16, each in a process of its own. A line is an operator, forward and backward
together: its share of the step's time, and its rate as a share of the rate at
which this machine multiplies square matrices in the same precision. Operators
without a count (norms, activations, sums) move memory, and have no such share.
Memory is the largest resident set during the steps. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import torch
from common import PeakMemory, Step
from gpu import device_name, our_step
from sizes import SIZES, TINY, Size, make_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from mmhiper.utils.devices import native_bf16

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
# Of the CPU, which PyTorch's own counter leaves out.
_FLASH = '_scaled_dot_product_flash_attention_for_cpu'
_ATTENTION: dict[str, Any] = {
    _FLASH: lambda q, k, v, *more: sdpa_flop_count(q.shape, k.shape, v.shape),
    f'{_FLASH}_backward': lambda grad, q, k, v, *more: (
        sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    ),
}
SHOWN = 0.01  # of the step; operators with less are put together
Found = dict[str, Any]


class Clock(TorchDispatchMode):
    """Seconds and counted operations of each operator inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, int] = defaultdict(int)
        self.calls: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Runs an operation, which on the CPU is done when it returns."""
        kwargs = kwargs or {}
        start = time.perf_counter()
        result = func(*args, **kwargs)
        passed = time.perf_counter() - start
        packet = func._overloadpacket
        name = str(packet).removeprefix('aten.')
        self.seconds[name] += passed
        self.calls[name] += 1
        if name in _ATTENTION:
            self.flops[name] += _ATTENTION[name](*args)
        elif packet in flop_registry:
            count = flop_registry[packet](*args, **kwargs, out_val=result)
            self.flops[name] += int(count)
        return result


def matmul_rate(dtype: torch.dtype, side: int) -> float:
    """Operations per second of a product of square matrices, the best."""
    a, b = torch.randn(2, side, side).to(dtype)
    best = float('inf')
    for _ in range(7):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def measure(folder: Path, size: Size, dtype: str, steps: int) -> Found:
    """A step, its operators and its memory."""
    rate = matmul_rate(DTYPES[dtype], 2048 if size is SIZES['sd1'] else 256)
    step: Step = our_step(folder, size, 1, dtype=dtype)
    step()  # caches, allocations
    seconds = []
    with PeakMemory() as memory:
        for _ in range(steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    with Clock() as clock:
        step()
    operators = {
        name: dict(
            seconds=clock.seconds[name],
            flops=clock.flops[name],
            calls=clock.calls[name],
        )
        for name in clock.seconds
    }
    return dict(
        dtype=dtype,
        rate=rate,
        seconds=statistics.median(seconds),
        gib=memory.gib,
        operators=operators,
    )


def describe(found: Found) -> str:
    """The table of one precision."""
    operators = found['operators']
    rate = found['rate']
    whole = sum(each['seconds'] for each in operators.values())
    flops = sum(each['flops'] for each in operators.values())
    share = flops / found['seconds'] / rate
    lines = [
        f'{found["dtype"]}: {found["seconds"]:.2f} s per step, '
        f'{found["gib"]:.2f} GiB; {flops / 1e12:.3f} T operations, '
        f'{100 * share:.1f} % of {rate / 1e9:.0f} GFLOP/s',
        f'{"operator":44s}{"calls":>7s}{"of step":>9s}{"of rate":>9s}',
    ]
    names = sorted(operators, key=lambda name: -operators[name]['seconds'])
    rest = 0.0
    for name in names:
        each = operators[name]
        part = each['seconds'] / whole
        if part < SHOWN:
            rest += part
            continue
        of_rate = '-'
        if each['flops']:
            own = each['flops'] / each['seconds'] / rate
            of_rate = f'{100 * own:.1f} %'
        lines.append(
            f'{name:44s}{each["calls"]:7d}{100 * part:7.1f} %{of_rate:>9s}'
        )
    lines.append(f'{"all others":51s}{100 * rest:7.1f} %')
    return '\n'.join(lines)


def main(words: list[str] | None = None) -> None:
    """Measure each precision that the processor has, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument('--tiny', action='store_true', help='rehearse')
    parser.add_argument('--folder', type=Path, help='a model to reuse')
    parser.add_argument('--out', type=Path, help='a file for the numbers')
    parser.add_argument('--dtype', choices=DTYPES, help='used by itself')
    args = parser.parse_args(words)
    size = (TINY if args.tiny else SIZES)['sd1']
    if args.dtype:
        found = measure(args.folder, size, args.dtype, args.steps)
        print(json.dumps(found))
        return
    print(f'{device_name()}, torch {torch.__version__}')
    chosen = ['fp32', *(['bf16'] if native_bf16() else [])]
    report = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / 'model_index.json').exists():
            make_model(folder, size)
        for dtype in chosen:
            command = [sys.executable, __file__, '--dtype', dtype]
            command += ['--folder', str(folder), '--steps', str(args.steps)]
            command += ['--tiny'] if args.tiny else []
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            report.append(json.loads(output.splitlines()[-1]))
            print(f'\n{describe(report[-1])}', flush=True)
    if not native_bf16():
        print('\nbf16: the processor would emulate it')
    if args.out:
        args.out.write_text(json.dumps(report, indent=1))


if __name__ == '__main__':
    main()
