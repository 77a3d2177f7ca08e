"""Signals to real processes, as terminals, schedulers and launchers do it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import DOG, REPO, free_port, options

from mmhiper.cli import main
from mmhiper.utils.work_dir import find_checkpoint

DEADLINE = 200  # seconds, far more than anything here takes


def started(command: list, **env: str) -> subprocess.Popen:
    """Starts a command as a terminal with ``nohup`` does.

    Args:
        command (list): Its words.
        **env (str): Of its environment.

    Returns:
        subprocess.Popen: Leader of a group of its own.
    """

    nohup = env.pop('NOHUP', None)

    def prepare():
        # what a shell's background job ignores, its children would, too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    return subprocess.Popen(
        [str(word) for word in command],
        env={
            **os.environ,
            'PYTHONPATH': str(REPO),
            'PYTHON': sys.executable,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'PORT': free_port(),
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )


def training(tiny, tmp_path: Path, processes: int, **more) -> list:
    """The command of a training that saves nothing by itself."""
    values = options(tmp_path, tiny, iters=1_000_000, **more)
    values['default_hooks.checkpoint.interval'] = 1_000_000
    values['default_hooks.logger.interval'] = 1
    values['custom_hooks.2.interval'] = 1_000_000
    work_dir = values.pop('work_dir')
    command = ['bash', REPO / 'tools' / 'dist_train.sh', DOG, processes]
    command += ['--work-dir', work_dir, '--cfg-options']
    return [*command, *(f'{key}={value}' for key, value in values.items())]


def wait_for(condition, process: subprocess.Popen) -> None:
    """Waits for something that a process does."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def log_size(work_dir: Path) -> int:
    """How much was logged, more with each iteration."""
    logs = work_dir.glob('*/vis_data/scalars.json')
    return sum(file.stat().st_size for file in logs)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = subprocess.run(
        ['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True
    )
    return [int(word) for word in found.stdout.split()]


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
    except OSError:
        return False
    return state.split()[0] != 'Z'


def end(process: subprocess.Popen) -> None:
    """Leaves nothing behind, whatever a test found."""
    for pid in [*children_of(process.pid), process.pid]:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    ('processes', 'signum', 'code'),
    [
        (1, signal.SIGINT, 130),
        (1, signal.SIGTERM, 143),
        (1, signal.SIGHUP, 129),
        (2, signal.SIGINT, 130),
        (2, signal.SIGTERM, 143),
    ],
)
def test_a_training_saves_and_says_so(
    tiny_sd1, tmp_path, processes, signum, code
):
    nohup = {} if signum == signal.SIGHUP else {'NOHUP': '1'}
    process = started(training(tiny_sd1, tmp_path, processes), **nohup)
    work_dir = tmp_path / 'run'
    try:
        wait_for(lambda: log_size(work_dir), process)
        if nohup:
            os.killpg(process.pid, signal.SIGHUP)
            time.sleep(2)
        # the first line may be from before the first iteration
        logged = log_size(work_dir)
        wait_for(lambda: log_size(work_dir) > logged, process)
        os.killpg(process.pid, signum)
        output = process.communicate(timeout=DEADLINE)[0]
    finally:
        end(process)

    assert process.returncode == code, output
    assert 'Traceback' not in output
    assert output.count('Interrupted.') == 1
    saved = find_checkpoint(work_dir)
    done = torch.load(saved)['meta']['iter']
    assert f'Saved: {saved}; iteration {done} was reached.' in output
    assert f'mmhiper train {work_dir}/dog.py --resume' in output
    assert saved.with_suffix('.safetensors').is_file()
    # which does what it says
    if processes == 1:
        length = f'train_cfg.max_iters={done + 1}'
        command = ['train', f'{work_dir}/dog.py', '--resume']
        assert main([*command, '--cfg-options', length]) == 0
        assert (work_dir / f'iter_{done + 1}.pth').is_file()


def test_at_any_moment_before_the_training(tiny_sd1, tmp_path):
    """Imports, the config, the models: from the first line of ours on."""
    words = ['train', DOG, *training(tiny_sd1, tmp_path, 1)[4:]]
    for delay in (0.2, 1.5, 3.0):
        process = started([sys.executable, '-m', 'mmhiper', *words])
        try:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=DEADLINE)[0]
        finally:
            end(process)
        assert process.returncode == 130, output
        assert 'Traceback' not in output
        assert output.count('Interrupted.') == 1


def test_a_second_signal_ends_at_once(tiny_sd1, tmp_path):
    """While the first one still has its iteration finished."""
    program = (
        'import os, signal, time\n'
        'from mmhiper.interruption import STOP\n'
        'with STOP.handled():\n'
        '    STOP.careful = True\n'
        '    os.kill(os.getpid(), signal.SIGTERM)\n'
        '    print("noted", flush=True)\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    print("never")\n'
    )
    ended = started([sys.executable, '-c', program])

    assert ended.communicate()[0] == (
        'noted\n\nInterrupted again: ended at once.\n'
    )
    assert ended.returncode == 130


def test_processes_end_with_their_launcher(tiny_sd1, tmp_path):
    """Which is killed, and so cannot end them."""
    process = started(training(tiny_sd1, tmp_path, 2))
    work_dir = tmp_path / 'run'
    try:
        wait_for(lambda: log_size(work_dir), process)
        workers = children_of(process.pid)
        assert len(workers) == 2
        process.kill()
        output = process.communicate(timeout=60)[0]  # as long as one writes
    finally:
        end(process)

    assert not any(map(is_running, workers))
    assert re.search(r'Saved: .*iter_\d+\.pth; iteration \d+', output)
    assert find_checkpoint(work_dir)


def test_a_stopped_process_ends_the_run(tiny_sd1, tmp_path):
    """After a time that the config says, and the error too."""
    command = training(tiny_sd1, tmp_path, 2)
    process = started([*command, 'env_cfg.dist_cfg.timeout=3'])
    try:
        wait_for(lambda: log_size(tmp_path / 'run'), process)
        time.sleep(1)
        other, stopped = children_of(process.pid)
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda: not is_running(other), process)
        # the launcher gives what does not end at its signal half a minute
        os.kill(stopped, signal.SIGCONT)
        output = process.communicate(timeout=DEADLINE)[0]
    finally:
        end(process)

    assert process.returncode == 1, output
    assert 'did not answer for 3 seconds' in output
    assert 'Traceback' not in output


def test_a_slurm_job_requeues_itself_and_resumes(tiny_sd1, tmp_path):
    """The script, with a `sbatch` and a `scontrol` that note their words."""
    programs = tmp_path / 'bin'
    programs.mkdir()
    for name in ('sbatch', 'scontrol'):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}\n')
        program.chmod(0o755)
    job = {
        'PATH': f'{programs}:{os.environ["PATH"]}',
        'SLURM_JOB_ID': '7',
    }
    words = training(tiny_sd1, tmp_path, 1)[6:]
    script = ['bash', REPO / 'tools' / 'slurm_train.sh', 'gpu', 'dog', DOG]
    script += [tmp_path / 'run', *words]
    submitted = started(script, **job)
    assert submitted.communicate()[0] == '' and submitted.returncode == 0
    said = (tmp_path / 'sbatch').read_text()
    assert '--requeue --signal=B:USR1@' in said and said.endswith(
        ' '.join(map(str, script[1:])) + '\n'
    )

    process = started(script, **job, SLURM_TRAIN_DIR=str(REPO / 'tools'))
    try:
        wait_for(lambda: log_size(tmp_path / 'run'), process)
        # the first line may be from before the first iteration
        logged = log_size(tmp_path / 'run')
        wait_for(lambda: log_size(tmp_path / 'run') > logged, process)
        process.send_signal(signal.SIGUSR1)
        output = process.communicate(timeout=DEADLINE)[0]
    finally:
        end(process)

    assert process.returncode == 143, output
    assert 'Nothing to resume' in output and 'Saved: ' in output
    assert (tmp_path / 'scontrol').read_text() == 'requeue 7\n'
    assert find_checkpoint(tmp_path / 'run')
