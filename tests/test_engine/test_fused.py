"""Where a device has a fused step, Adam takes it."""

from __future__ import annotations

import pytest
import torch
from runs import config, learn

from mmhiper.engine.fused import with_fused_step
from mmhiper.engine.launch import train

ADAM = dict(type='Adam', lr=5e-3)


@pytest.mark.parametrize(
    ('device', 'optimizer', 'fused'),
    [
        ('cuda', ADAM, True),
        ('cuda', dict(type='AdamW', lr=1e-3), True),
        ('cpu', ADAM, None),  # where it gains nothing
        ('cuda', dict(type='SGD', lr=1e-3), None),
        ('cuda', dict(ADAM, fused=False), False),  # what a config says
        ('cuda', dict(ADAM, foreach=True), None),
    ],
)
def test_who_gets_it(monkeypatch, device, optimizer, fused):
    monkeypatch.setattr(
        'mmhiper.engine.fused.best_device', lambda: torch.device(device)
    )
    given = dict(optimizer=optimizer, clip_grad=None)
    found = with_fused_step(given)
    assert found['optimizer'].get('fused') is fused
    assert 'clip_grad' in found and given['optimizer'] == optimizer


def test_a_run_steps_by_it_and_learns_the_same(
    tmp_path, tiny_sd1, monkeypatch
):
    """On the CPU, which has one too."""
    (tmp_path / 'plain').mkdir()
    (tmp_path / 'fused').mkdir()
    plain = learn(config(tmp_path / 'plain', tiny_sd1, 3))
    monkeypatch.setattr('mmhiper.engine.fused._DEVICES', ('cpu',))
    cfg = config(tmp_path / 'fused', tiny_sd1, 3)
    runner = train(cfg)
    (group,) = runner.optim_wrapper.param_groups
    assert group['fused'] is True
    # three steps of Adam of 5e-3 each, whose quotient is rounded otherwise;
    # that of a gradient near 0 may turn
    learned = runner.model.embedding.tail.detach()
    difference = (learned - plain).abs()
    assert difference.max() <= 2 * 3 * 5e-3
    assert difference.median() < 1e-5
