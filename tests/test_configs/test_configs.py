"""Every config builds, runs, and says what its paper says."""

from pathlib import Path

import pytest
import torch
from inversion import with_image_encoder
from mmengine.config import Config
from runs import REPO, config, last
from tiny import FAMILIES

from mmhiper.cli.photos import photos_of
from mmhiper.engine.launch import train
from mmhiper.many import personalise
from mmhiper.registry import DATASETS, MODELS
from mmhiper.utils.shipped import config_path, list_configs

CONFIGS = [config_path(name) for name in list_configs()]
every_config = pytest.mark.parametrize(
    'file', CONFIGS, ids=lambda file: f'{file.parent.name}/{file.stem}'
)


def family_of(cfg: Config) -> str:
    """The family of the backbone that a config names."""
    name = cfg.model.sd.pretrained
    if 'xl' in name:
        return 'sdxl'
    return 'sd2' if 'stable-diffusion-2' in name else 'sd1'


@every_config
def test_runs_two_iterations(file, request, tmp_path):
    """Every config, on a tiny model of its family, by our own launcher."""
    family = family_of(Config.fromfile(file))
    folder = request.getfixturevalue(f'tiny_{family}')
    more = {}
    if 'image_encoder' in Config.fromfile(file).model:
        width = FAMILIES[family].width
        folder = with_image_encoder(folder, tmp_path / 'encoder', width)
        more['model.image_encoder.pretrained'] = str(folder)
        more['model.image_encoder.without_cuda'] = None
    cfg = config(tmp_path, folder, iters=2, file=file, **more)
    if 'images_per_step' in cfg:  # of many images, see test_many.py
        cfg.photos = [cfg.train_dataloader.dataset.img]
        cfg.model.update(source_text='a dog', target_text='a cat')
        assert personalise(photos_of(cfg), cfg, tmp_path / 'many') == {}
        return
    start = MODELS.build(cfg.model).state_dict()

    train(cfg)

    learned = torch.load(last(cfg))['state_dict']
    assert learned.keys() == start.keys()
    assert all(tensor.isfinite().all() for tensor in learned.values())
    assert any(
        not torch.equal(tensor, start[name])
        for name, tensor in learned.items()
        if tensor.is_floating_point()
    )


@every_config
def test_is_short_and_says_what_it_is(file):
    text = file.read_text()

    assert text.startswith(('"""', 'r"""'))
    assert len(text.splitlines()) < 60


def test_dog_has_the_setting_of_the_paper():
    cfg = Config.fromfile(REPO / 'configs' / 'hiper' / 'dog.py')

    assert cfg.model.sd.pretrained == 'CompVis/stable-diffusion-v1-4'
    assert cfg.model.sd.without_cuda == 'mini-sd'
    assert (cfg.model.n_hiper, cfg.model.strength) == (5, 0.8)
    assert cfg.optim_wrapper.optimizer == dict(
        type='Adam', lr=5e-3, betas=(0.9, 0.999), eps=1e-8
    )
    assert cfg.train_cfg.max_iters == 1200
    assert cfg.train_dataloader.batch_size == 1
    assert cfg.randomness.seed == 200000


@pytest.mark.parametrize(
    'file', (REPO / 'configs' / '_base_').glob('sd*.py'), ids=lambda f: f.stem
)
def test_every_backbone_is_in_use_and_has_a_substitute(file):
    sd = Config.fromfile(file).model.sd
    users = [
        path.stem
        for path in CONFIGS
        if Config.fromfile(path).model.sd.pretrained == sd.pretrained
    ]

    assert users
    assert sd.without_cuda == 'mini-sd'


def test_picture_of_the_dog_is_there():
    cfg = Config.fromfile(REPO / 'configs' / 'hiper' / 'dog.py')
    dataset = DATASETS.build(
        dict(
            cfg.train_dataloader.dataset,
            data_root=str(REPO),
            type='mmhiper.SourceImageDataset',
            _scope_='mmhiper',
        )
    )

    assert dataset[0]['inputs'].shape == (3, 512, 512)


def test_person_differs_from_dog_in_few_values():
    dog = Config.fromfile(REPO / 'configs' / 'hiper' / 'dog.py')
    person = Config.fromfile(REPO / 'configs' / 'hiper' / 'person.py')

    assert person.model.n_hiper == 10
    # no person lives in the mini model's world
    assert person.model.sd.without_cuda is None
    assert person.optim_wrapper == dog.optim_wrapper
    assert person.train_cfg == dog.train_cfg
    assert not Path(REPO, person.train_dataloader.dataset.img).exists()
