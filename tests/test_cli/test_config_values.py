"""Values of ``--cfg-options`` where they belong."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from runs import DOG, REPO

from mmhiper.cli.config_values import merge_options
from mmhiper.cli.options import read_value
from mmhiper.utils.errors import UserError

WORD = REPO / 'configs' / 'textual_inversion' / 'textual_inversion.py'
EDIT = REPO / 'configs' / 'style_diffusion' / 'dog.py'


def merged(file, *options):
    texts = dict(option.split('=', 1) for option in options)
    config = Config.fromfile(file)
    values = {name: read_value(text) for name, text in texts.items()}
    return config, merge_options(config, values, texts)


@pytest.mark.parametrize(
    ('file', 'option', 'words'),
    [
        (DOG, 'max_iters=5', '`max_iters` has no effect.*train_cfg.max_iters'),
        (DOG, 'max_iter=5', 'train_cfg.max_iters'),
        (DOG, 'lr=3', r'optim_wrapper\.optimizer\.lr'),
        (DOG, 'optim_wraper.optimizer.lr=3', r'optim_wrapper\.optimizer\.lr'),
        (DOG, 'train_cgf.max_iters=3', r'train_cfg\.max_iters'),
        (DOG, 'work_dri=x', 'work_dir'),
        (DOG, 'n_hiper=3', r'model\.n_hiper'),
        (DOG, 'strenght=0.5', r'model\.strength'),
        (DOG, 'val_prompts=x', r'model\.val_prompts'),  # not in the file
        (DOG, 'dtype=bf16', r'model\.sd\.dtype'),
        (DOG, 'mask=m.png', r'train_dataloader\.dataset\.mask'),
        (DOG, 'seed=3', r'randomness\.seed'),
        (DOG, 'qqqqqqqq=3', 'At its top a config has'),
        (DOG, 'env_cfg.dist_cgf.timeout=3', r'env_cfg\.dist_cfg\?'),
        (
            WORD,
            'placeholder=<toy>',
            r'a name inside.*model\.placeholder_token, '
            r'train_dataloader\.dataset\.placeholder',
        ),
    ],
)
def test_a_name_that_has_no_effect(file, option, words):
    with pytest.raises(UserError, match=words) as caught:
        merged(file, option)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('file', 'option', 'expected'),
    [
        (DOG, 'model.source_text=1.10', '1.10'),
        (DOG, 'model.source_text=123', '123'),
        (DOG, 'model.target_text=True', 'True'),
        (DOG, 'model.target_text=None', None),
        (DOG, 'model.val_prompts=2024', '2024'),
        (DOG, 'model.sd.pretrained=1.5', '1.5'),
        (DOG, 'train_dataloader.dataset.img=1e3', '1e3'),
        (DOG, 'train_dataloader.dataset.mask=007', '007'),
        (DOG, 'work_dir=2024', '2024'),
        (DOG, 'experiment_name=1.0', '1.0'),
        (DOG, 'log_level=10', '10'),
        (WORD, 'model.initialize_token=2', '2'),
        (WORD, 'train_dataloader.dataset.concept_dir=1.10', '1.10'),
        (EDIT, 'model.image_encoder.pretrained=5', '5'),
        (DOG, 'model.strength=1.10', 1.1),
        (DOG, 'model.n_hiper=7', 7),
        (DOG, 'model.min_snr_gamma=5', 5),
        (DOG, 'model.debiased=True', True),
        (DOG, 'train_cfg.max_iters=10', 10),
        (DOG, 'optim_wrapper.optimizer.lr=1e-3', 1e-3),
        (DOG, 'custom_hooks.3.interval=5', 5),
        (DOG, 'randomness.seed=5', 5),
        (DOG, 'resume=True', True),
        (EDIT, 'model.edit.tau_c=0.5', 0.5),
        (EDIT, 'model.edit.align=5', 5),  # the editor says what it takes
    ],
)
def test_a_text_is_one_where_the_config_wants_one(file, option, expected):
    name = option.partition('=')[0]
    config, chosen = merged(file, option)
    assert chosen == {name: expected}
    assert type(chosen[name]) is type(expected)
    found = config
    for part in name.split('.'):
        found = found[int(part)] if part.isdigit() else found[part]
    assert found == expected
