"""Rows of new words that stay as long as they began, through whole runs."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from runs import REPO, config, last, learn
from tolerances import EPS

from mmhiper.engine.launch import train
from mmhiper.registry import MODELS

FOLDER = REPO / 'configs' / 'textual_inversion'
WORD = FOLDER / 'textual_inversion.py'


def lengths(rows, widths):
    """Of each text encoder's part of each row."""
    return torch.stack([part.norm(dim=1) for part in rows.split(widths, 1)])


@pytest.mark.parametrize('file', ['textual_inversion', 'paper'])
@pytest.mark.parametrize('family', ['sd1', 'sdxl'])
def test_a_run_holds_the_length_where_its_config_says_so(
    file, family, request, tmp_path
):
    folder = request.getfixturevalue(f'tiny_{family}')
    cfg = config(tmp_path, folder, iters=4, file=FOLDER / f'{file}.py')
    cfg.default_hooks.checkpoint.interval = 4
    editor = MODELS.build(cfg.model)
    widths = [table.shape[1] for table in editor.sd.token_tables]
    start = lengths(editor.embedding.rows.detach(), widths)

    rows = learn(cfg)

    assert not torch.equal(rows, editor.embedding.rows)
    # a sum of at most a hundred squares, its root, and a product
    change = (lengths(rows, widths) / start - 1).abs().max()
    assert (change < 256 * EPS) == (file == 'textual_inversion')


def test_a_resumed_run_holds_as_an_uninterrupted_one(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1, iters=5, file=WORD)
    cfg.default_hooks.checkpoint.interval = 2
    whole = learn(cfg)
    last(cfg).unlink()
    last(cfg).with_suffix('.safetensors').unlink()

    assert torch.equal(learn(cfg, resume='auto'), whole)


@pytest.mark.parametrize('rate', [None, 3e-4])
def test_the_rate_of_the_config_is_used_and_logged(tiny_sd1, tmp_path, rate):
    """It falls evenly to a tenth."""
    cfg = config(tmp_path, tiny_sd1, iters=3, file=WORD)
    cfg.default_hooks.logger.interval = 1
    if rate is not None:
        cfg.optim_wrapper.optimizer.lr = rate
    first = Config.fromfile(WORD).optim_wrapper.optimizer.lr
    first = first if rate is None else rate

    runner = train(cfg)

    path = Path(runner.log_dir, 'vis_data', 'scalars.json')
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    rates = [line['lr'] for line in logged if 'lr' in line]
    assert rates == pytest.approx([first, 0.55 * first, 0.1 * first])


def test_a_run_that_is_made_longer_goes_on_to_learn(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1, iters=2, file=WORD)
    short = learn(cfg)
    cfg.train_cfg.max_iters = 4

    assert not torch.equal(learn(cfg, resume='auto'), short)


def test_a_run_of_one_iteration_takes_the_first_rate(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1, iters=1, file=WORD)
    editor = MODELS.build(cfg.model)

    assert not torch.equal(learn(cfg), editor.embedding.rows)


def test_an_editor_without_words_is_refused(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1, iters=2)
    cfg.custom_hooks.append(dict(type='HoldNormHook'))
    with pytest.raises(ValueError, match=r'HoldNormHook needs .* got HiPer'):
        train(cfg)
