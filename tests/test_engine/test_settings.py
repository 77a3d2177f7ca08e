"""Settings are checked before anything is loaded."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from runs import DOG

from mmhiper.engine.settings import check_settings
from mmhiper.utils import register_all_modules
from mmhiper.utils.errors import UserError

HOOKS = 'default_hooks'


def settings(**values):
    register_all_modules()
    config = Config.fromfile(DOG)
    config.merge_from_dict(values)
    return config


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('randomness.seed', 2**64, r'`randomness.seed` must be.*4294967295\]'),
        ('randomness.seed', -1, 'but got -1'),
        ('randomness.seed', 1.5, 'but got 1.5'),
        ('randomness.seed', '7', "but got '7'"),
        ('train_dataloader.batch_size', 0, 'of at least 1, but got 0'),
        ('train_dataloader.batch_size', 1.5, 'but got 1.5'),
        ('train_dataloader.num_workers', -1, 'of at least 0'),
        ('train_dataloader.num_workers', True, 'but got True'),
        ('train_cfg.max_iters', 2.5, 'of at least 1, but got 2.5'),
        ('optim_wrapper.optimizer.lr', '5e-3x', "above 0, but got '5e-3x'"),
        ('optim_wrapper.optimizer.type', 'AdamWW', 'Did you mean AdamW'),
        ('optim_wrapper.optimizer.type', 'adam', 'Did you mean Adam'),
        (
            'optim_wrapper.optimizer.betas',
            5,
            '`optim_wrapper.optimizer`: `betas` must be a pair',
        ),
        ('optim_wrapper.optimizer.eps', '1e-8', 'without quotes: 1e-08'),
        ('optim_wrapper.optimizer.beta', 5, 'Did you mean `betas`'),
        (
            f'{HOOKS}.checkpoint.interval',
            'x',
            '`default_hooks.checkpoint`: `interval`',
        ),
        (f'{HOOKS}.checkpoint.interval', 2.5, 'a whole number, but got 2.5'),
        (f'{HOOKS}.logger.interval', 0, 'at least 1 iteration'),
        (f'{HOOKS}.checkpont.interval', 3, r'mean default_hooks\.checkpoint'),
        ('custom_hooks.3.interval', '100', 'without quotes: 100'),
        ('custom_hooks.3.type', 'PreviewHok', 'Did you mean PreviewHook'),
    ],
)
def test_what_no_run_can_begin_with(name, value, words):
    with pytest.raises(UserError, match=words) as caught:
        check_settings(settings(**{name: value}))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('randomness.seed', None),
        ('randomness.seed', 2**32 - 1),
        (f'{HOOKS}.logger', None),
        (f'{HOOKS}.checkpoint.interval', -1),  # none on the way
        ('optim_wrapper.optimizer.betas', [0.5, 0.9]),
        ('optim_wrapper.optimizer.type', 'mmengine.SGD'),
        ('optim_wrapper.optimizer.type', 'elsewhere.Adam'),
        ('custom_hooks.3.priority', 'LOW'),
    ],
)
def test_what_a_run_can_begin_with(name, value):
    config = settings(**{name: value})
    if 'SGD' in str(value):
        config.optim_wrapper.optimizer = dict(type=value, lr=1)
    check_settings(config)
