"""What the stages share: the clock-driven loop, checkpoints, the log."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

SAVE_EVERY = 120  # seconds
WARM = 0.5  # of the rate, from weights that are good already


def device() -> torch.device:
    """The device that trains: a CUDA device where there is one."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def autocast() -> contextlib.AbstractContextManager:
    """bfloat16 where it pays; weights and losses stay fp32."""
    return torch.autocast(device().type, torch.bfloat16)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Build a network from ``seed``, leaving the global state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _upsample(self: Upsample2D, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    """Repeat every position 2 x 2, then convolve; shapes are static."""
    b, c, h, w = hidden.shape
    doubled = hidden[:, :, :, None, :, None].expand(b, c, h, 2, w, 2)
    return self.conv(doubled.reshape(b, c, 2 * h, 2 * w))


def compiled(model: nn.Module) -> Any:
    """Compile for training on pictures of one size.

    The CPU's compiled backward of nearest interpolation is all zeros
    (torch 2.13), so upsampling is written out; nothing else changes.
    """
    for module in model.modules():
        if isinstance(module, Upsample2D):
            module.forward = MethodType(_upsample, module)
    return torch.compile(model, dynamic=False)


def save(path: Path, **state: Any) -> None:
    """Save atomically, so that a kill leaves the last good state."""
    part = path.with_suffix('.part')
    torch.save(state, part)
    part.replace(path)


def open_part(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Open what a killed run left of an array, or begin one of zeros."""
    if path.exists():
        return np.lib.format.open_memmap(path, 'r+')
    return np.lib.format.open_memmap(path, 'w+', dtype, shape)


def load(path: Path) -> dict[str, Any]:
    """Load what `save` saved."""
    saved: dict[str, Any] = torch.load(
        path, map_location=device(), weights_only=True
    )
    return saved


def newest(*paths: Path) -> Path | None:
    """Return the file written last, the first of equals, None without one."""
    there = [path for path in paths if path.exists()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


class Log:
    """Tells progress on the screen and in ``log.txt``."""

    def __init__(self, work_dir: Path) -> None:
        self._path = work_dir / 'log.txt'

    def __call__(self, text: str) -> None:
        """Write one line with the time of day."""
        line = f'{time.strftime("%H:%M:%S")} {text}'
        print(line, flush=True)
        with self._path.open('a') as file:
            file.write(line + '\n')


def rank() -> int:
    """This process's number among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def average_gradients(model: nn.Module, clock: float) -> float:
    """Average gradients, and the clock, over the processes.

    One process per core with a thread each: on a shared machine two threads
    of one process wait for each other at every operation, two processes only
    here, once a step.

    Args:
        model: All its trainable weights have gradients.
        clock: Seconds this process has trained.

    Returns:
        The mean clock, the same number in every process.
    """
    if ranks() == 1:
        return clock
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat(
        [*(g.flatten() for g in grads), grads[0].new_tensor([clock])]
    )
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for grad in grads:
        grad.copy_(flat[start : start + grad.numel()].view_as(grad))
        start += grad.numel()
    return float(flat[-1])


def fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[np.random.Generator, float], Tensor],
    work_dir: Path,
    log: Log,
    *,
    minutes: float,
    rate: float,
    seed: int,
    ema_decay: float | None = None,
    falls: bool = True,
    begin: str | None = None,
    watch: Callable[[nn.Module], str] | None = None,
    watch_every: float = 120,
) -> nn.Module:
    """Train by the clock, which counts CPU time: other work costs no steps.

    A killed run goes on from ``{name}_state.pth`` with the time it had left;
    a new one begins from ``{name}_start.pth`` where there is one, at half
    the rate.

    Args:
        name: The stage, for files and the log.
        model: What is trained, in place.
        loss_of: From a generator, seeded by ``seed``, step and process, and
            the share of time gone, in [0, 1], to a scalar loss.
        work_dir: Where the state and the result go.
        log: Where progress is told.
        minutes: CPU time to train for, in all sittings together.
        rate: Peak learning rate of AdamW.
        seed: Of the batches.
        ema_decay: Keep a moving average and return it.
        falls: The learning rate reaches zero when time is up. Else it stays,
            and the budget can be raised at any time.
        begin: Another stage, of the same model, to go on from where its state
            is newer than this one's own.
        watch: Called with the weights to judge, returns words for the log.
        watch_every: CPU seconds between two such calls.

    Returns:
        The moving average, or ``model`` without one.
    """
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    average = deepcopy(model) if ema_decay and rank() == 0 else model
    state = work_dir / f'{name}_state.pth'
    start = work_dir / f'{begin or name}_start.pth'
    step, spent = 0, 0.0
    last = newest(state, *([work_dir / f'{begin}_state.pth'] if begin else []))
    if last:
        saved = load(last)
        model.load_state_dict(saved['model'])
        if average is not model:
            average.load_state_dict(saved['average'])
        optimizer.load_state_dict(saved['optimizer'])
        step, spent = saved['step'], saved['spent'] if last == state else 0.0
        log(f'{name}: goes on at step {step}, {spent / 60:.1f} min')
    elif start.exists():
        begun = load(start)['model']
        model.load_state_dict(begun)
        average.load_state_dict(begun)
    if start.exists():
        rate *= WARM  # in every sitting

    def keep() -> None:
        save(
            state,
            model=model.state_dict(),
            average=average.state_dict(),
            optimizer=optimizer.state_dict(),
            step=step,
            spent=spent,
        )

    started = time.process_time() - spent
    saved_at, watched_at, told_at, told_step = spent, spent, spent, step
    losses: list[float] = []
    while spent < 60 * minutes:
        share = spent / (60 * minutes)
        now = rate * min(1, (step + 1) / 60)
        if falls:
            now *= 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group['lr'] = now
        loss = loss_of(np.random.default_rng([seed, step, rank()]), share)
        loss.backward()
        spent = average_gradients(model, time.process_time() - started)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        losses.append(loss.item())
        if rank() != 0:
            continue
        if ema_decay:
            decay = min(ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(average.parameters()),
                    list(model.parameters()),
                    1 - decay,
                )
        if spent - saved_at > SAVE_EVERY:
            saved_at = spent
            keep()
        if spent - told_at > 60:
            words = ''
            if watch and spent - watched_at > watch_every:
                watched_at = spent
                words = ', ' + watch(average)
            pace = (step - told_step) / (spent - told_at)
            log(
                f'{name}: {spent / 60:.1f} min, step {step} ({pace:.2f}/s), '
                f'loss {np.mean(losses):.4f}{words}'
            )
            told_at, told_step = spent, step
            losses.clear()
    if rank() == 0:
        keep()
        save(work_dir / f'{name}.pth', model=average.state_dict())
        words = ', ' + watch(average) if watch else ''
        log(f'{name}: done, step {step}{words}')
    return average


def _start(index: int, count: int, meeting: Path, job: Callable) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{meeting}', rank=index, world_size=count
    )
    job()
    dist.destroy_process_group()


def together(job: Callable[[], None], work_dir: Path, processes: int) -> None:
    """Run ``job`` on the GPU, or in processes of one thread that share it.

    Args:
        job: Picklable; calls `fit`.
        work_dir: Where the processes meet.
        processes: How many, without a GPU.
    """
    if torch.cuda.is_available():
        job()
        return
    # A training step frees and takes the same large blocks again and again:
    # keep them, or page faults take more time than the arithmetic.
    os.environ.setdefault('MALLOC_MMAP_MAX_', '0')
    os.environ.setdefault('MALLOC_TRIM_THRESHOLD_', str(2**34))
    os.environ.setdefault('MALLOC_TOP_PAD_', str(2**28))
    meeting = (work_dir / 'meeting').resolve()
    meeting.unlink(missing_ok=True)
    torch.multiprocessing.spawn(
        _start, (processes, meeting, job), nprocs=processes
    )
