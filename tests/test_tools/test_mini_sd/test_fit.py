"""The loop by the clock: it can be killed, stopped, gone on with, finished."""

import itertools

import pytest
import torch
from recipe import common
from recipe.common import fit
from torch import nn


class Target:
    """A model, and a loss with noise, that each sitting builds anew."""

    def __init__(self, work_dir):
        self.work_dir = work_dir
        self.rates = []

    def train(self, name, minutes, **options):
        model = nn.Linear(1, 1)
        with torch.no_grad():
            model.weight.fill_(3.0)
            model.bias.fill_(0.0)

        def loss_of(rng, share):
            x = torch.from_numpy(rng.standard_normal((4, 1))).float()
            return (model(x) - x).square().mean()

        return fit(
            name,
            model,
            loss_of,
            self.work_dir,
            lambda text: None,
            minutes=minutes,
            rate=0.01,
            seed=1,
            ema_decay=0.9,
            **options,
        ).weight.item()


@pytest.fixture
def target(tmp_path, monkeypatch):
    """A minute goes by whenever the clock is read: one for each step."""
    clock = itertools.count(0, 60)
    monkeypatch.setattr(common.time, 'process_time', lambda: next(clock))
    target = Target(tmp_path)
    step = torch.optim.AdamW.step

    def watched(self):
        target.rates.append(self.param_groups[0]['lr'])
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, 'step', watched)
    return target


def test_a_raised_budget_gives_what_the_whole_one_would_have(target):
    target.train('a', 70, falls=False)
    in_two = target.train('a', 90, falls=False)
    whole = target.train('b', 90, falls=False)

    assert in_two == pytest.approx(whole, abs=1e-6)
    assert target.rates[:90] == target.rates[90:]
    assert set(target.rates[60:90]) == {0.01}


def test_a_run_killed_between_saves_goes_on_to_the_same_end(
    target, monkeypatch
):
    whole = target.train('a', 30)
    step = torch.optim.AdamW.step

    def killed(self):
        if len(target.rates) == 30 + 17:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, 'step', killed)
        with pytest.raises(KeyboardInterrupt):
            target.train('b', 30)

    assert not (target.work_dir / 'b.pth').exists()
    assert target.train('b', 30) == pytest.approx(whole, abs=1e-6)


def test_a_stage_that_finishes_another_leaves_it_to_go_on(target):
    target.train('unet', 70, falls=False)
    target.rates.clear()

    target.train('annealed', 10, begin='unet')

    assert len(target.rates) == 10
    assert target.rates[0] == 0.01
    assert target.rates[-1] < 0.001

    target.rates.clear()
    target.train('unet', 75, falls=False)
    assert target.rates == [0.01] * 5

    target.rates.clear()
    target.train('annealed', 10, begin='unet')
    assert len(target.rates) == 10  # anew, from what is newer


def test_a_training_begins_from_weights_taken_over(target, tmp_path):
    start = nn.Linear(1, 1)
    with torch.no_grad():
        start.weight.fill_(1.0)  # the target itself: nothing is left to learn
        start.bias.fill_(0.0)
    common.save(tmp_path / 'a_start.pth', model=start.state_dict())
    # from chance three steps of 0.01 leave it near 3
    assert target.train('a', 3) == pytest.approx(1.0, abs=0.1)
    # of its own state it knows more than what it began from
    common.save(tmp_path / 'a_start.pth', model=nn.Linear(1, 1).state_dict())
    assert target.train('a', 6) == pytest.approx(1.0, abs=0.1)


def test_weights_taken_over_learn_at_one_rate_in_every_sitting(
    target, tmp_path
):
    common.save(tmp_path / 'a_start.pth', model=nn.Linear(1, 1).state_dict())
    target.train('a', 70, falls=False)
    target.train('a', 75, falls=False)
    assert set(target.rates[60:]) == {0.01 * common.WARM}

    target.rates.clear()
    target.train('annealed', 10, begin='a')
    assert target.rates[0] == 0.01 * common.WARM
