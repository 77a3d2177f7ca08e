"""One training, and two at once, for several ways in which threads wait.

    python tools/benchmarks/busy_machine.py

A line is a setting of GNU OpenMP: milliseconds per step of HiPer on mini-sd
with nothing beside it, what that loses to the fastest setting, and how many
times as long each of two steps takes that run at once. The machine must be
idle. What counts is the best of several rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from mmhiper.threads import COUNT, POLICY, SPINS

SETTINGS: dict[str, dict[str, str]] = {
    'nothing set': {},
    f'{COUNT}=100000': {COUNT: '100000'},
    f'{COUNT}={SPINS}, ours': {COUNT: str(SPINS)},
    f'{COUNT}=1000': {COUNT: '1000'},
    f'{POLICY}=PASSIVE': {POLICY: 'PASSIVE'},
}
WARM_UP = 3  # steps


def train_for(seconds: float) -> float:
    """Trains on the dog when it is told to; milliseconds per step."""
    # torch is loaded here, with the setting of this process
    from mmengine.dataset import pseudo_collate
    from mmengine.logging import MessageHub
    from mmengine.optim import build_optim_wrapper

    from mmhiper.registry import DATASETS, MODELS
    from mmhiper.utils import register_all_modules
    from mmhiper.utils.config_file import read_config

    register_all_modules()
    cfg = read_config('hiper/dog')
    cfg.model.sd.update(pretrained='mini-sd', without_cuda=None)
    editor = MODELS.build(cfg.model)
    data = pseudo_collate([DATASETS.build(cfg.train_dataloader.dataset)[0]])
    optimizer = build_optim_wrapper(editor, cfg.optim_wrapper)
    hub = MessageHub.get_current_instance()

    def step(iteration: int) -> None:
        hub.update_info_dict(dict(seed=0, iter=iteration))
        editor.train_step(data, optimizer)

    for iteration in range(WARM_UP):
        step(iteration)
    print('ready', flush=True)
    sys.stdin.readline()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step(WARM_UP + count)
        count += 1
    return 1000 * (time.perf_counter() - start) / count


def run_at_once(
    processes: int, setting: dict[str, str], seconds: float
) -> float:
    """Milliseconds per step, the mean over processes that run at once."""
    environ = {k: v for k, v in os.environ.items() if k not in (COUNT, POLICY)}
    command = [sys.executable, __file__, '--child', '--seconds', str(seconds)]
    children = [
        subprocess.Popen(
            command,
            env=environ | setting | {'CUDA_VISIBLE_DEVICES': ''},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        while child.stdout.readline() not in ('ready\n', ''):
            pass
    for child in children:
        assert child.stdin is not None
        child.stdin.write('go\n')
        child.stdin.flush()
    times = [float(child.communicate()[0].split()[-1]) for child in children]
    return sum(times) / processes


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--child', action='store_true', help='used by itself')
    args = parser.parse_args()
    if args.child:
        print(train_for(args.seconds))
        return
    best: dict[tuple[str, int], float] = {}
    for _ in range(args.rounds):  # in turn, as the machine changes
        for name, setting in SETTINGS.items():
            for processes in (1, 2):
                found = run_at_once(processes, setting, args.seconds)
                key = name, processes
                best[key] = min(found, best.get(key, found))
    fastest = min(best[name, 1] for name in SETTINGS)
    print(f'{"":24s}{"alone":>10s}{"lost":>9s}{"two at once":>15s}')
    for name in SETTINGS:
        alone, two = best[name, 1], best[name, 2]
        print(
            f'{name:24s}{alone:7.1f} ms{100 * (alone / fastest - 1):7.1f} %'
            f'{two / alone:11.2f} times'
        )


if __name__ == '__main__':
    main()
