"""The config of StyleDiffusion as a run: curriculum, checkpoints, resume."""

import math
import re
import runpy
import shlex
import sys
import uuid
import warnings
from pathlib import Path

import pytest
import torch
from inversion import with_image_encoder
from mmengine.config import Config
from PIL import Image
from runs import REPO, config, draw_image
from tiny import FAMILIES

from mmhiper.apis import load_editor
from mmhiper.engine.launch import train
from mmhiper.io import read_export
from mmhiper.registry import MODELS
from mmhiper.utils.sheet import cut_panels

FILE = REPO / 'configs' / 'style_diffusion' / 'dog.py'


@pytest.fixture(scope='module')
def folder(tiny_sd1, tmp_path_factory):
    root = tmp_path_factory.mktemp('encoder')
    return with_image_encoder(tiny_sd1, root / 'sd1', FAMILIES['sd1'].width)


def tiny_config(tmp_path, folder, **more) -> Config:
    """The config with 3 timesteps of at most 4 iterations."""
    values = {
        'model.num_steps': 3,
        'model.num_inner_steps': 4,
        'model.image_encoder.pretrained': str(folder),
        'model.image_encoder.without_cuda': None,
        'default_hooks.checkpoint.interval': 2,
        **more,
    }
    cfg = config(tmp_path, folder, 10**6, FILE, previews=True, **values)
    if 'train_cfg.max_iters' not in more:
        del cfg.train_cfg['max_iters']
    return cfg


@pytest.fixture(scope='module')
def run(folder, tmp_path_factory):
    """A whole run: its config, its runner, its log."""
    cfg = tiny_config(tmp_path_factory.mktemp('run'), folder)
    runner = train(cfg)
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    return cfg, runner, log


def test_a_run_ends_when_all_is_learned(run):
    cfg, runner, log = run
    iterations = runner.iter

    assert runner.model.finished
    assert 3 <= iterations <= 4 + 4 + 4
    names = sorted(path.name for path in Path(cfg.work_dir).glob('iter_*'))
    last = f'iter_{iterations}'
    assert f'{last}.pth' in names and f'{last}.safetensors' in names
    assert f'Done: {iterations} iterations' in log
    (preview,) = Path(cfg.work_dir, 'previews').iterdir()
    with Image.open(preview) as picture:
        assert picture.width > 4 * 256  # four panels


def test_the_log_shows_where_it_is(run):
    _, _, log = run
    lines = re.findall(r'timestep (\d) of 3 done after (\d) inner steps', log)

    assert [int(step) for step, _ in lines] == [1, 2, 3]
    line = next(x for x in log.splitlines() if 'timestep 1 of 3' in x)
    assert re.search(r'latent \d\.\d\de[-+]\d\d, attention \d', line)
    assert re.search(r'at most \d+:\d\d:\d\d left', line)


def test_contract_4(run):
    cfg, runner, _ = run
    checkpoint = torch.load(f'{cfg.work_dir}/iter_{runner.iter}.pth')
    model = MODELS.build(cfg.model)
    model.load_state_dict(checkpoint['state_dict'])
    sample = model.infer('a standing fox', show_progress=False)['samples'][0]

    assert sample.size == (64, 64)
    editor = load_editor(cfg.work_dir)
    other = editor.infer('a standing fox', show_progress=False)['samples'][0]
    assert sample.tobytes() == other.tobytes()


def test_a_checkpoint_holds_what_is_still_needed(run):
    cfg, runner, _ = run
    (last,) = Path(cfg.work_dir).glob(f'iter_{runner.iter}.pth')
    first = torch.load(f'{cfg.work_dir}/iter_2.pth')
    final = torch.load(last)

    # Adam's memory of the network in training, and of no other
    assert len(first['optimizer']['state']) in (0, 8)
    assert len(final['optimizer']['state']) == 0
    tensors, metadata = read_export(last.with_suffix('.safetensors'))
    source = metadata['arguments']['source_text']
    assert source == 'a standing dog on the grass'
    assert int(tensors['progress'][0]) == 3


def test_the_learning_rate_falls_with_the_timesteps(run):
    _, runner, _ = run

    (group,) = runner.optim_wrapper.param_groups
    assert group['lr'] == pytest.approx(1e-2 * 0.98)


@pytest.mark.parametrize('killed_at', [2, 4, 6])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(
    run, folder, tmp_path, killed_at
):
    _, whole, _ = run
    short = tiny_config(tmp_path, folder, **{'train_cfg.max_iters': killed_at})
    train(short)
    cfg = tiny_config(tmp_path, folder)
    cfg.experiment_name = uuid.uuid4().hex

    runner = train(cfg, resume='auto')

    assert runner.iter == whole.iter > 6
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[name], tensor), name


def test_a_finished_run_is_not_trained_further(run, folder, tmp_path):
    done, whole, _ = run
    cfg = tiny_config(tmp_path, folder)
    path = f'{done.work_dir}/iter_{whole.iter}.pth'

    runner = train(cfg, resume=path)

    assert runner.iter == whole.iter
    assert torch.equal(runner.model.reached, whole.model.reached)


def test_the_setting_is_that_of_the_paper():
    cfg = Config.fromfile(FILE)

    assert cfg.model.sd.pretrained == 'CompVis/stable-diffusion-v1-4'
    assert cfg.model.sd.without_cuda == 'mini-sd'
    assert (cfg.model.num_steps, cfg.model.guidance_scale) == (30, 7.5)
    assert (cfg.model.num_inner_steps, cfg.model.attention_weight) == (20, 1)
    assert cfg.optim_wrapper.optimizer == dict(type='Adam', lr=1e-2)
    assert len(FILE.read_text().splitlines()) < 60
    most = sum(math.ceil(20 * math.exp(-0.1 * i)) for i in range(30))
    assert f'at most {most} iterations' in FILE.read_text()


def test_several_processes_are_refused(run, monkeypatch):
    _, runner, _ = run
    monkeypatch.setattr(
        'mmhiper.models.editors.curriculum.get_world_size', lambda: 2
    )
    with pytest.raises(ValueError, match='train with one'):
        runner.model.loss(torch.zeros(1, 3, 64, 64), [])


def test_the_commands_of_the_config(folder, tmp_path, monkeypatch, capsys):
    values = {
        'model.sd.pretrained': folder,
        'model.sd.without_cuda': None,
        'model.image_encoder.pretrained': folder,
        'model.image_encoder.without_cuda': None,
        'model.num_steps': 2,
        'model.num_inner_steps': 2,
        'train_dataloader.dataset.img': draw_image(tmp_path / 'a.png'),
    }
    words = [FILE, '--work-dir', tmp_path / 'run', '--cfg-options']
    call(
        monkeypatch,
        'train.py',
        *words,
        *(f'{k}={v}' for k, v in values.items()),
    )
    printed = capsys.readouterr().out
    command = shlex.split(printed.splitlines()[-1])

    assert 'timestep 2 of 2 done' in printed
    assert command[:2] == ['mmhiper', 'infer']
    out = tmp_path / 'drawn'
    call(monkeypatch, 'infer.py', *command[2:], '--out-dir', out)
    # nothing is drawn at random: one picture
    assert sorted(p.name for p in out.iterdir()) == [
        '000.png',
        'grid.png',
        'pictures.json',
    ]
    with Image.open(out / '000.png') as picture:
        assert picture.size == (64, 64)


def call(monkeypatch, tool: str, *words: object) -> None:
    """Runs a tool in this process, as the shell would."""
    argv = [str(REPO / 'tools' / tool), *map(str, words)]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(argv[0], run_name='__main__')
    assert not end.value.code


def test_validation_prompts_leave_the_training_alone(run, folder, tmp_path):
    _, runner, _ = run
    prompts = ['a standing fox on the grass', 'a standing cow on the grass']
    cfg = tiny_config(tmp_path, folder, **{'model.val_prompts': prompts})
    for hook in cfg.custom_hooks:
        if hook.type == 'PreviewHook':
            hook.interval = 4

    with warnings.catch_warnings():  # a preview on the way
        warnings.filterwarnings('ignore', '.* timesteps are trained')
        seen = train(cfg)

    with Image.open(seen.message_hub.get_info('last_preview')) as sheet:
        captions = [caption for caption, _ in cut_panels(sheet)]
    assert captions[-2:] == prompts
    learned = seen.model.state_dict()
    for name, tensor in runner.model.state_dict().items():
        assert torch.equal(learned[name], tensor), name
    for name in ('loss.png', 'timeline.png'):
        assert Path(cfg.work_dir, name).is_file()


def test_an_edit_that_cannot_be_is_refused_before_training(folder, tmp_path):
    options = {
        'model.val_prompts': ['a very big cat on the grass'],
        'model.edit': dict(edit_type='replacement'),
    }
    cfg = tiny_config(tmp_path, folder, **options)
    with pytest.raises(ValueError, match='word'):
        MODELS.build(cfg.model)
