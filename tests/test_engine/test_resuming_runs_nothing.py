"""A checkpoint that is resumed is data, the config in it too."""

import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from runs import config, learn

from mmhiper.engine.launch import train
from mmhiper.utils import register_all_modules


@pytest.fixture(scope='module')
def trained(tiny_sd1, tmp_path_factory):
    """A run of two iterations: its folder and checkpoint."""
    folder = tmp_path_factory.mktemp('resume')
    learn(config(folder, tiny_sd1, iters=2))
    return folder, folder / 'run' / 'iter_2.pth'


@pytest.fixture
def attack(trained, tmp_path):
    """That checkpoint with code where MMEngine runs it, and its mark."""
    mark = tmp_path / 'mark'
    checkpoint = torch.load(trained[1])
    code = f'open({str(mark)!r}, "w").close()'
    checkpoint['meta'].update(config=code, cfg=code)
    path = tmp_path / 'iter_2.pth'
    torch.save(checkpoint, path)
    return path, mark


def config_to(tmp_path: Path, trained, tiny_sd1, **options) -> Config:
    cfg = config(trained[0], tiny_sd1, iters=4, **options)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.experiment_name = uuid.uuid4().hex
    return cfg


def test_the_code_would_run(attack):
    path, mark = attack
    text = torch.load(path)['meta']['config']

    Config.fromstring(text, '.py')  # as Runner.resume does

    assert mark.exists()


@pytest.mark.parametrize('hooks', ['ours', 'none'])
def test_resuming(attack, trained, tiny_sd1, tmp_path, hooks):
    path, mark = attack
    cfg = config_to(tmp_path, trained, tiny_sd1)
    if hooks == 'none':
        cfg.custom_hooks = []
        # with the logs as MMEngine has them, which no hook makes of ours
        checkpoint = torch.load(path)
        checkpoint['message_hub']['log_scalars'] = {}
        torch.save(checkpoint, path)

    runner = train(cfg, resume=str(path))

    assert runner.iter == 4
    assert not mark.exists()


def test_loading(attack, trained, tiny_sd1, tmp_path):
    path, mark = attack
    cfg = config_to(tmp_path, trained, tiny_sd1, load_from=str(path))

    assert train(cfg).iter == 4
    assert not mark.exists()


def test_a_stock_runner_with_our_hook(attack, trained, tiny_sd1, tmp_path):
    path, mark = attack
    cfg = config_to(
        tmp_path, trained, tiny_sd1, load_from=str(path), resume=True
    )
    cfg.custom_hooks = [dict(type='PlainCheckpointHook')]
    register_all_modules()

    runner = Runner.from_cfg(cfg)
    runner.train()

    assert runner.iter == 4
    assert not mark.exists()


def test_new_checkpoints_have_no_config(trained):
    checkpoint = torch.load(trained[1])

    places = checkpoint['meta'], checkpoint['message_hub']['runtime_info']
    for place in places:
        assert not {'config', 'cfg'} & set(place)
    assert 'IterBasedTrainLoop' not in str(checkpoint)
    # it lies beside them
    assert Config.fromfile(trained[0] / 'run' / 'dog.py').model.type == 'HiPer'
