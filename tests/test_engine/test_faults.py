"""Numbers that are no numbers, disks that are full, folders that are taken."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from runs import DOG, REPO, config, embedding_of, free_port, learn, options
from tiny import make_hiper

from mmhiper.engine.hooks import FiniteHook
from mmhiper.engine.launch import train
from mmhiper.engine.processes import timeout_of
from mmhiper.engine.run_lock import run_lock
from mmhiper.registry import HOOKS
from mmhiper.utils.atomic import WriteError
from mmhiper.utils.errors import UserError
from mmhiper.utils.work_dir import find_checkpoint

STYLE = REPO / 'configs' / 'style_diffusion' / 'dog.py'


@HOOKS.register_module()
class AfterIteration(Hook):
    """Does something to a run after an iteration, before all else."""

    priority = 'VERY_HIGH'
    action = None

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 == self.iteration:
            type(self).action(runner)


def after(cfg, iteration, action):
    """Has a run meet something after an iteration."""
    AfterIteration.action = staticmethod(action)
    cfg.custom_hooks.append(dict(type='AfterIteration', iteration=iteration))
    return cfg


# ------------------------------------------------------- not finite
@pytest.mark.parametrize('keep', [-1, 1])
def test_a_diverging_run_ends_and_keeps_its_last_checkpoint(
    tiny_sd1, tmp_path, keep
):
    """What was learned became infinite in the step before a save."""

    def spoil(runner):
        with torch.no_grad():
            runner.model.embedding.tail[0, 0, 0] = float('inf')

    cfg = config(tmp_path, tiny_sd1, iters=6)
    cfg.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=keep)
    with pytest.raises(ValueError, match=r'infinite at iteration 4') as stop:
        learn(after(cfg, 4, spoil))

    folder = Path(cfg.work_dir)
    names = {file.name for file in folder.glob('iter_*')}
    assert names == {'iter_2.pth', 'iter_2.safetensors'}
    assert str(folder / 'iter_2.pth') in str(stop.value)
    assert find_checkpoint(folder).name == 'iter_2.pth'
    assert embedding_of(folder / 'iter_2.pth').isfinite().all()
    assert not list(folder.glob('previews/iter_000004.png'))


@pytest.mark.parametrize('file', [DOG, STYLE])
def test_a_rate_beyond_all_measure(tiny_sd1, tmp_path, file):
    cfg = config(tmp_path, tiny_sd1, 8, file)
    if file == STYLE:
        del cfg.model.image_encoder, cfg.model.attention_weight
        cfg.model.update(type='NullTextInversion', num_steps=4)
    cfg.optim_wrapper.optimizer.lr = 1e30

    with pytest.raises(ValueError, match=r'became (NaN|infinite)') as stop:
        learn(cfg)

    words = str(stop.value)
    # not the last one, where it was looked at
    assert re.search(r'at iteration [1-4] \(timestep \d+', words), words
    assert 'learning rate' in words and '1e+30' in words
    assert 'Nothing is saved' in words
    assert not list(Path(cfg.work_dir).glob('iter_*'))


@pytest.mark.parametrize('rate', [1e39, -1.0, float('nan'), float('inf'), 'x'])
def test_a_rate_that_is_none(tiny_sd1, tmp_path, rate):
    cfg = config(tmp_path, tiny_sd1)
    cfg.optim_wrapper.optimizer.lr = rate

    with pytest.raises(UserError, match=r'optim_wrapper\.optimizer\.lr'):
        train(cfg)


def test_without_checkpoints_the_end_is_looked_at(tiny_sd1, tmp_path):
    def spoil(runner):
        with torch.no_grad():
            runner.model.embedding.tail.fill_(float('nan'))

    cfg = config(tmp_path, tiny_sd1, iters=2)
    cfg.default_hooks.checkpoint = None
    with pytest.raises(ValueError, match=r'tail` became NaN at iteration 2'):
        train(after(cfg, 2, spoil))


def test_a_config_of_an_earlier_version_is_looked_after_too(
    tiny_sd1, tmp_path
):
    cfg = config(tmp_path, tiny_sd1, iters=2)
    del cfg.default_hooks.finite
    cfg.optim_wrapper.optimizer.lr = 1e30

    with pytest.raises(ValueError, match='became'):
        train(cfg)


def test_what_is_not_finite_is_neither_loaded_nor_drawn_with(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    state = editor.state_dict()
    state['embedding.tail'][0, 0, 0] = float('nan')  # of the editor itself

    with pytest.raises(ValueError, match='NaN or infinite'):
        editor.infer('a dog', num_inference_steps=1)
    with pytest.raises(ValueError, match='NaN or infinite'):
        make_hiper(tiny_sd1).load_state_dict(state)


def test_the_first_wrong_loss_is_named(tiny_sd1, tmp_path):
    """Of those since the last look, which was in the midst of the run."""

    def spoil(runner):
        with torch.no_grad():
            runner.model.embedding.tail.fill_(float('nan'))

    cfg = config(tmp_path, tiny_sd1, iters=9)
    cfg.default_hooks.finite.interval = 2
    with pytest.raises(ValueError, match=r'The loss .*iteration 4 ') as stop:
        train(after(cfg, 3, lambda runner: spoil(runner)))
    assert re.search(r'\(timestep \d+\)', str(stop.value))


def test_the_interval_is_checked():
    with pytest.raises(ValueError, match='at least 1 iteration, but got 0'):
        FiniteHook(interval=0)


# ------------------------------------------------------- the disk
def test_a_folder_that_goes_away(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1, iters=4)
    cfg.default_hooks.logger.interval = 1
    with pytest.raises(WriteError, match=r'run.*gone'):
        train(after(cfg, 2, lambda runner: shutil.rmtree(runner.work_dir)))


def test_a_folder_that_becomes_a_file(tiny_sd1, tmp_path):
    def replace(runner):
        shutil.rmtree(runner.work_dir)
        Path(runner.work_dir).touch()

    cfg = config(tmp_path, tiny_sd1, iters=2)
    with pytest.raises(WriteError, match='run'):
        train(after(cfg, 2, replace))


def test_a_full_disk_is_one_message_of_two_processes(tiny_sd1, tmp_path):
    """A limit on the size of a file: the log meets it, and a checkpoint."""
    values = options(tmp_path, tiny_sd1, iters=4)
    values['model.n_hiper'] = 70
    values['custom_hooks.2.interval'] = 1000
    words = ' '.join(f"'{key}={value}'" for key, value in values.items())
    command = f'bash {REPO}/tools/dist_train.sh {DOG} 2 --cfg-options {words}'
    result = subprocess.run(
        ['bash', '-c', f'ulimit -f 20; exec {command}'],
        capture_output=True,
        text=True,
        timeout=200,
        env={
            'PATH': '/usr/bin:/bin',
            'PYTHON': sys.executable,
            'PORT': free_port(),
            'PYTHONDONTWRITEBYTECODE': '1',  # it would cut those too
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
        },
    )

    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert output.count('error: ') == 1
    (line,) = [x for x in output.splitlines() if x.startswith('error: ')]
    assert 'iter_4.pth' in line and 'File too large' in line
    assert 'Traceback' not in output
    assert not list(Path(tmp_path, 'run').glob('*iter_4.pth*'))


# ------------------------------------------------------- the lock
def test_a_folder_has_one_run_at_a_time(tiny_sd1, tmp_path):
    """Of another process, until that is killed."""
    cfg = config(tmp_path, tiny_sd1)
    folder = Path(cfg.work_dir)
    folder.mkdir()
    program = (
        'import sys, time\n'
        'from mmhiper.engine.run_lock import run_lock\n'
        'with run_lock(sys.argv[1]):\n'
        '    print("locked", flush=True)\n'
        '    time.sleep(1000)\n'
    )
    other = subprocess.Popen(
        [sys.executable, '-c', program, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={'PYTHONPATH': str(REPO), 'PATH': '/usr/bin:/bin'},
    )
    try:
        assert other.stdout.readline() == 'locked\n'
        with pytest.raises(ValueError, match=r'Another run.*run.*--work-dir'):
            train(cfg)
        assert not (folder / 'run.json').exists()
    finally:
        other.kill()
        other.communicate()
    with run_lock(folder):  # of this process, as `mmhiper edit` has it
        train(cfg)
    assert (folder / 'iter_2.pth').is_file()


def test_the_message_names_the_process(tiny_sd1, tmp_path):
    """In a thread: a lock is of one holder, wherever the other is."""
    from concurrent.futures import ThreadPoolExecutor

    cfg = config(tmp_path, tiny_sd1)
    caught = []

    def second(runner):
        with ThreadPoolExecutor() as pool:
            caught.append(pool.submit(_lock_of, runner.work_dir).exception())

    train(after(cfg, 1, second))
    import os

    assert f'process {os.getpid()} on ' in str(caught[0])


def _lock_of(folder):
    with run_lock(folder):
        pass


# ------------------------------------------------------- processes
@pytest.mark.parametrize('timeout', [0, -5, 'long', float('nan')])
def test_the_timeout_is_checked(tiny_sd1, tmp_path, timeout):
    cfg = config(tmp_path, tiny_sd1)
    assert timeout_of(cfg) == 1800
    cfg.env_cfg.dist_cfg.timeout = timeout
    with pytest.raises(ValueError, match=r'dist_cfg\.timeout.*more than 0'):
        timeout_of(cfg)
