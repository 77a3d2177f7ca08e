"""Ctrl-C in real processes, as a terminal sends it: to the whole group."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import DOG, REPO, free_port, options


def interrupted(command: list, awaited: Path) -> tuple[int, str]:
    """Starts a command and stops it as soon as a file is there.

    Args:
        command (list): Its words.
        awaited (Path): The file.

    Returns:
        tuple[int, str]: Exit code, and what it printed.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        env={
            **os.environ,
            'PYTHONPATH': str(REPO),
            'PYTHON': sys.executable,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'PORT': free_port(),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell's background job would ignore it, and so would its children
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )
    try:
        for _ in range(3000):
            if awaited.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=100)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


@pytest.mark.parametrize('processes', [1, 2])
def test_training_says_what_is_saved(tiny_sd1, tmp_path, processes):
    values = options(tmp_path, tiny_sd1, iters=100_000)
    values['default_hooks.checkpoint.interval'] = 20
    values['custom_hooks.2.interval'] = 1_000_000
    work_dir = Path(values.pop('work_dir'))
    command = ['bash', REPO / 'tools' / 'dist_train.sh', DOG, processes]
    command += ['--work-dir', work_dir, '--cfg-options']
    command += [f'{key}={value}' for key, value in values.items()]
    code, output = interrupted(command, work_dir / 'iter_20.safetensors')

    assert code == 130, output
    assert 'Traceback' not in output
    assert output.count('Interrupted.') == 1
    last = (work_dir / 'last_checkpoint').read_text()
    assert f'Saved: {last};' in output
    assert f'mmhiper train {work_dir}/dog.py --resume' in output
