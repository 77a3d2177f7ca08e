"""What a machine can compute on, by what PyTorch offers."""

from __future__ import annotations

import contextlib
import functools
import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

# Instructions of processors, the fastest first: of Intel and AMD, and of ARM.
_BF16 = ('amx_bf16', 'avx512_bf16', 'sve_bf16', 'bf16')
_WEIGHTS = ('.safetensors', '.bin', '.ckpt', '.pth', '.pt')
# What PyTorch says of a device or a precision that it cannot serve.
_NO_SUCH = (RuntimeError, TypeError, NotImplementedError, AssertionError)


def accelerator() -> torch.device | None:
    """The accelerator of this machine, whatever its make.

    Returns:
        CUDA, Apple's mps, Intel's xpu, or another
        that PyTorch knows; None if there is none.
    """
    if torch.cuda.is_available():  # first, also where there are others
        return torch.device('cuda')
    if not torch.accelerator.is_available():
        return None
    device = torch.accelerator.current_accelerator()
    if device is None or not _asks(device, 'is_available', default=True):
        return None
    return torch.device(device.type)


def best_device() -> torch.device:
    """Where to compute: the accelerator, else the CPU.

    Returns:
        Without a number.
    """
    return accelerator() or torch.device('cpu')


def memory_of(device: torch.device) -> int | None:
    """The memory of a device.

    Args:
        device: An accelerator.

    Returns:
        In bytes, also what is in use; None if it does not say.
    """
    whole = _asks(device, 'recommended_max_memory')  # of mps
    if whole is None:
        traits = _asks(device, 'get_device_properties', 0)
        whole = getattr(traits, 'total_memory', None)
    return None if whole is None else int(whole)


def free_memory(device: torch.device) -> int | None:
    """The memory that can still be used.

    Args:
        device: An accelerator, or the CPU.

    Returns:
        In bytes; None if it is not known.
    """
    if device.type == 'cpu':
        return _free_on_the_host()
    if device.type != 'cuda':
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # what PyTorch holds, and does not use
    held = torch.cuda.memory_reserved(device)
    return int(free + held - torch.cuda.memory_allocated(device))


def _free_on_the_host() -> int | None:
    """What Linux says; less where a container has a limit of its own."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        (kib,) = (
            int(line.split()[1])
            for line in lines
            if line.startswith('MemAvailable:')
        )
    except (OSError, ValueError):
        return None
    free = 1024 * kib
    with contextlib.suppress(OSError, ValueError):  # 'max' is no limit
        group = Path('/sys/fs/cgroup')
        limit = int((group / 'memory.max').read_text())
        used = int((group / 'memory.current').read_text())
        free = min(free, max(0, limit - used))
    return free


def _asks(
    device: torch.device, name: str, *args: Any, default: Any = None
) -> Any:
    """What PyTorch's module of a kind of devices answers, if it can."""
    module = getattr(torch, device.type, None)
    function = getattr(module, name, None)
    if function is None:
        return default
    try:
        return function(*args)
    except _NO_SUCH:
        return default


def size_of_weights(model: str) -> int | None:
    """How large the weights of a model on this machine are.

    Args:
        model: A folder in the diffusers layout, or a single file.

    Returns:
        In bytes, of each part the smallest kind of file; None
        for what is elsewhere.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        return None
    total = 0
    for part in filter(Path.is_dir, path.iterdir()):
        kinds: dict[str, int] = {}
        for file in part.iterdir():
            if file.suffix in _WEIGHTS:
                # unet/model.fp16.safetensors, unet/model-00001-of-00002.bin
                variant = 'fp16' if '.fp16' in file.name else ''
                kind = variant + file.suffix
                kinds[kind] = kinds.get(kind, 0) + file.stat().st_size
        total += min(kinds.values(), default=0)
    return total or None


def lacks_room(model: str, device: torch.device) -> bool:
    """Whether the weights of a model alone are more than a device holds.

    Args:
        model: See :func:`size_of_weights`.
        device: An accelerator.

    Returns:
        False where size or memory is not known.
    """
    size, memory = size_of_weights(model), memory_of(device)
    return size is not None and memory is not None and size > memory


def native_bf16() -> str:
    """What the processor multiplies numbers of bf16 with.

    Returns:
        Such as 'amx_bf16'; '' if it emulates them, which is slower than fp32.
    """
    known = _capabilities()
    return next((name for name in _BF16 if known.get(name)), '')


def _capabilities() -> dict[str, Any]:
    """What PyTorch knows of the processor."""
    if hasattr(torch.cpu, 'get_capabilities'):
        return dict(torch.cpu.get_capabilities())
    return dict(  # of an earlier PyTorch
        amx_bf16=torch.cpu._is_amx_tile_supported(),
        avx512_bf16=torch.cpu._is_avx512_bf16_supported(),
    )


def usable_dtype(dtype: torch.dtype) -> torch.dtype:
    """A precision that this machine computes in, and says if it is another.

    On the CPU bf16 is one where the processor has it, not where it emulates
    it.

    Args:
        dtype: What was asked for.

    Returns:
        The same, or ``torch.float32``.
    """
    device = best_device()
    if dtype == torch.float32 or _has(dtype, device):
        return dtype
    print_log(
        f'The device {str(device)!r} does not compute in '
        f'{str(dtype).removeprefix("torch.")}: the frozen model runs in '
        'float32.',
        logger='current',
        level=logging.WARNING,
    )
    return torch.float32


def _has(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device computes in a precision, and does not emulate it."""
    if device.type == 'cpu' and dtype == torch.bfloat16 and not native_bf16():
        return False
    return computes_in(dtype, device)


def computes_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device multiplies and convolves in a precision.

    Args:
        dtype: Of floating point.
        device: Where.

    Returns:
        Found by trying.
    """
    try:
        ones = torch.ones(1, 1, 4, 4, dtype=dtype, device=device)
        torch.nn.functional.conv2d(ones, ones[..., :3, :3]) @ ones[..., :2, :2]
    except _NO_SUCH:
        return False
    return True


@functools.lru_cache
def has_float64(device: torch.device) -> bool:
    """Whether a device has numbers of double precision; mps has none.

    Args:
        device: Where.

    Returns:
        Found by trying, once.
    """
    try:
        torch.empty(1, dtype=torch.float64, device=device)
    except _NO_SUCH:
        return False
    return True
