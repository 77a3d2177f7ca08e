"""Starting a run: resuming, processes, what is a user's mistake."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from runs import (
    REPO,
    config,
    draw_image,
    embedding_of,
    free_port,
    last,
    learn,
    options,
    state_in,
)

from mmhiper.apis import load_editor
from mmhiper.datasets import LoadUprightImage
from mmhiper.engine.launch import set_up_processes, train
from mmhiper.registry import MODELS

TOY = REPO / 'configs' / 'textual_inversion' / 'textual_inversion.py'
# With so large an eps a step of Adam is proportional to the gradient. Else it
# would hide a loss that the number of processes scales, and would make steps
# of full size out of gradients that are nothing but rounding.
LINEAR = {
    'optim_wrapper.optimizer.eps': 1e3,
    'optim_wrapper.optimizer.lr': 1e4,
    'optim_wrapper.optimizer.weight_decay': 0.0,
}
# So what is learned differs by the rounding of gradients, a few thousandths of
# what it moved at worst: sums of single precision through 20 layers. A loss
# that is scaled by the number of processes differs by a half.
PART = 0.01


def start(*command: object, **env: str) -> subprocess.Popen:
    """Starts a command of the project in a process group of its own."""
    paths = [str(REPO), os.environ.get('PYTHONPATH')]
    return subprocess.Popen(
        [str(word) for word in command],
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join(filter(None, paths)),
            'PYTHON': sys.executable,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def cfg_options(values: dict) -> list[str]:
    """The same values on a command line."""
    return ['--cfg-options', *(f'{k}={v}' for k, v in values.items())]


def test_resumed_run_equals_an_uninterrupted_one(tiny_sd1, tmp_path):
    whole = learn(config(tmp_path, tiny_sd1, iters=6))
    checkpoint = tmp_path / 'run' / 'iter_4.pth'

    cfg = config(tmp_path, tiny_sd1, iters=4)
    cfg.work_dir = str(tmp_path / 'parts')
    half = learn(cfg)
    cfg.train_cfg.max_iters = 6
    resumed = learn(cfg, resume='auto')

    assert not checkpoint.exists()  # the whole run was not stopped there
    assert not torch.equal(half, whole)
    assert torch.equal(resumed, whole)


def test_a_word_for_sdxl_resumes_and_is_used(tiny_sdxl, tmp_path):
    every = {'file': TOY, 'default_hooks.checkpoint.interval': 2}
    whole = learn(config(tmp_path, tiny_sdxl, iters=4, **every))
    cfg = config(tmp_path, tiny_sdxl, iters=2, **every)
    cfg.work_dir = str(tmp_path / 'parts')
    learn(cfg)
    cfg.train_cfg.max_iters = 4
    resumed = learn(cfg, resume='auto')

    assert whole.shape == (1, 32 + 48)
    assert torch.equal(resumed, whole)
    folder = Path(cfg.work_dir)
    for name in ('iter_4.pth', 'iter_4.safetensors'):
        editor = load_editor(folder, folder / name, device='cpu')
        assert torch.equal(editor.embedding.rows.detach(), whole)


LEAVING = """
import sys
from pathlib import Path

from mmengine.config import Config

from mmhiper.engine.launch import train

def threads():
    tasks = Path('/proc/self/task').iterdir()
    return [(task / 'comm').read_text().strip() for task in tasks]

path, out = sys.argv[1:]
cfg = Config.fromfile(path)
runner = train(cfg, 'pytorch')
words = [name for name in threads() if 'gloo' in name]
Path(out, f'{len(words)} left by {runner.rank}').touch()
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_no_thread_of_the_processes_outlives_the_training(tiny_sd1, tmp_path):
    """Or one could drop something when the interpreter has ended: SIGABRT."""
    cfg = config(tmp_path, tiny_sd1, iters=1)
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'leaving.py').write_text(LEAVING)
    out = tmp_path / 'out'
    out.mkdir()
    launcher = [sys.executable, '-m', 'torch.distributed.run']
    launcher += ['--nproc_per_node', 2, '--master_port', free_port()]
    process = start(
        *launcher, tmp_path / 'leaving.py', tmp_path / 'config.py', out
    )
    output = process.communicate(timeout=300)[0]

    assert process.returncode == 0, output
    found = sorted(path.name for path in out.iterdir())
    assert found == ['0 left by 0', '0 left by 1']


def test_killed_run_resumes_to_the_same_embedding(tiny_sd1, tmp_path):
    """SIGKILL in the midst of a run that writes all the time."""
    command = [sys.executable, REPO / 'tools' / 'train.py']
    command += [REPO / 'configs' / 'hiper' / 'dog.py']
    values = options(tmp_path, tiny_sd1, iters=80)
    values['default_hooks.checkpoint.interval'] = 1
    values['custom_hooks.2.interval'] = 1000  # no previews on the way
    process = start(*command, *cfg_options(values))
    folder = tmp_path / 'run'
    deadline = time.time() + 300
    while not (folder / 'iter_10.pth').exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.time() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (folder / 'iter_80.pth').exists()
    for file in folder.glob('iter_*.pth'):  # complete, every one
        embedding_of(file)

    resumed = start(*command, '--resume', *cfg_options(values))
    output = resumed.communicate(timeout=300)[0]

    assert resumed.returncode == 0, output
    assert 'Resuming from' in output
    uninterrupted = config(tmp_path, tiny_sd1, iters=80)
    uninterrupted.work_dir = str(tmp_path / 'uninterrupted')
    assert torch.equal(
        embedding_of(folder / 'iter_80.pth'), learn(uninterrupted)
    )


def test_a_photo_is_decoded_once(tiny_sd1, tmp_path, monkeypatch):
    draw_image(tmp_path / 'image.png')
    decoded = []
    decode = LoadUprightImage.transform

    def counted(self, results):
        decoded.append(results['img_path'])
        return decode(self, results)

    monkeypatch.setattr(LoadUprightImage, 'transform', counted)
    runner = train(config(tmp_path, tiny_sd1, iters=3, previews=True))

    assert decoded == [str(tmp_path / 'image.png')]
    assert runner.train_dataloader.dataset[0]['inputs'].shape == (3, 64, 64)
    # and what the run keeps of its config is its config
    (kept,) = Path(runner.work_dir).glob('*.py')
    dataset = Config.fromfile(kept).train_dataloader.dataset
    assert dataset.type == 'SourceImageDataset'


def test_work_dir_is_checked_before_anything_else(tiny_sd1, tmp_path):
    (tmp_path / 'file').touch()
    cfg = config(tmp_path, tmp_path / 'no such model')
    cfg.work_dir = str(tmp_path / 'file' / 'run')

    with pytest.raises(ValueError, match='Cannot write'):
        train(cfg)


def test_images_are_read_before_the_backbone_is_loaded(tmp_path):
    cfg = config(tmp_path, tmp_path / 'no such model')
    cfg.train_dataloader.dataset.img = str(tmp_path / 'none.png')

    with pytest.raises(FileNotFoundError, match=r'none\.png'):
        train(cfg)


def test_one_process_needs_no_group(monkeypatch):
    cfg = Config(dict(launcher='none'))
    monkeypatch.setenv('WORLD_SIZE', '1')

    set_up_processes(cfg, 'pytorch')

    assert cfg.launcher == 'none'
    assert 'model_wrapper_cfg' not in cfg


@pytest.mark.parametrize('images', [1, 2])
def test_two_processes_equal_one(tiny_sd1, tmp_path, images):
    """One image seen by both, or one image each (C7)."""
    files = [draw_image(tmp_path / f'{i}.png', i) for i in range(images)]
    texts = [f'picture {i}' for i in range(images)]
    values = options(tmp_path, tiny_sd1, iters=4, **LINEAR)
    values['work_dir'] = str(tmp_path / 'two')
    values['custom_hooks.2.interval'] = 1000
    values['train_dataloader.dataset.img'] = [str(file) for file in files]
    values['model.source_text'] = str(texts)
    process = start(
        'bash',
        REPO / 'tools' / 'dist_train.sh',
        REPO / 'configs' / 'hiper' / 'dog.py',
        2,
        *cfg_options(values),
        PORT=free_port(),
    )
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert 'Warning' not in output and 'WARNING' not in output
    two = embedding_of(tmp_path / 'two' / 'iter_4.pth')

    one = config(tmp_path, tiny_sd1, iters=4, **LINEAR)
    one.train_dataloader.dataset.img = [str(file) for file in files]
    one.train_dataloader.batch_size = images
    one.model.source_text = texts
    together = learn(one)
    alone = config(tmp_path, tiny_sd1, iters=4, **LINEAR)
    alone.work_dir = str(tmp_path / 'alone')
    alone.train_dataloader.dataset.img = str(files[-1])
    alone.model.source_text = texts[-1]
    start_value = MODELS.build(alone.model).state_dict()['embedding.tail']
    moved = (two[-1:] - start_value).abs().max().item()

    assert two.shape == (images, 5, 32)
    assert moved > 1e-3
    close = dict(rtol=0, atol=PART * moved)
    torch.testing.assert_close(two, together, **close)
    torch.testing.assert_close(two[-1:], learn(alone), **close)


def test_two_processes_learn_two_words(tiny_sd1, tmp_path):
    """Each takes a picture of its own: together, a batch of two.

    There are steps with both words, and with one, in both processes or in
    one of them; and the pictures' own tokens are in few.
    """
    for concept in ('toy', 'cat'):
        (tmp_path / concept).mkdir()
        for k in range(2):
            draw_image(tmp_path / concept / f'{k}.png', k + len(concept))
    values = options(tmp_path, tiny_sd1, iters=6, file=TOY, **LINEAR)
    values |= {
        'work_dir': str(tmp_path / 'two'),
        'custom_hooks.2.interval': 1000,
        'model.placeholder_token': ['<toy>', '<cat>'],
        'model.val_prompts': ['<toy>', '<cat>'],
        'model.per_image_tokens': 4,
        'model.embedding_reg_weight': 1.0,
        'train_dataloader.dataset.concept_dir': ['toy', 'cat'],
        'train_dataloader.dataset.placeholder': ['<toy>', '<cat>'],
    }
    process = start(
        'bash', REPO / 'tools' / 'dist_train.sh', TOY, 2,
        *cfg_options(values), PORT=free_port(),
    )  # fmt: skip
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert 'Warning' not in output and 'WARNING' not in output

    values = {
        key: value
        for key, value in values.items()
        if key != 'train_dataloader.dataset.template'
    }
    values['work_dir'] = str(tmp_path / 'one')
    cfg = config(tmp_path, tiny_sd1, 6, TOY, **values)
    cfg.train_dataloader.batch_size = 2
    train(cfg)
    start_values = MODELS.build(cfg.model).state_dict()
    together = state_in(last(cfg))
    apart = state_in(tmp_path / 'two' / 'iter_6.pth')
    assert apart.keys() == together.keys()
    for word in ('<toy>', '<cat>'):
        name = f'embedding.rows:{word}'
        moved = (apart[name] - start_values[name]).abs()
        assert moved.min() > 0
        close = dict(rtol=0, atol=PART * moved.max().item())
        torch.testing.assert_close(apart[name], together[name], **close)


def test_resumed_words_equal_uninterrupted_ones(tiny_sd1, tmp_path):
    """Shuffled pictures, random sentences, progressive vectors, mixing."""
    for k in range(3):
        draw_image(tmp_path / f'{k}.png', seed=k)
    words = ['<cat-toy>', '<cat>']
    more = {
        'model.placeholder_token': words,
        'model.val_prompts': words,
        'model.num_vectors_per_token': 2,
        'model.progressive_interval': 3,
        'model.per_image_tokens': 8,
        'train_dataloader.dataset.concept_dir': ['.', '.'],
        'train_dataloader.dataset.placeholder': words,
    }

    def learned(cfg, resume=None):
        cfg.experiment_name = uuid.uuid4().hex  # as `learn` does
        train(cfg, resume=resume)
        return state_in(last(cfg))

    whole = learned(config(tmp_path, tiny_sd1, 8, TOY, **more))
    cfg = config(tmp_path, tiny_sd1, 5, TOY, **more)
    cfg.work_dir = str(tmp_path / 'parts')
    learned(cfg)
    cfg.train_cfg.max_iters = 8
    resumed = learned(cfg, resume='auto')
    assert len(whole) == 4
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
