"""The history of the losses: MMEngine's own, without a wait per iteration."""

import pickle
from collections import Counter
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from rehearsal import Rehearsal
from runs import config, learn

from mmhiper.engine import LazyRuntimeInfoHook
from mmhiper.engine.launch import train
from mmhiper.registry import HOOKS


@pytest.fixture
def runner():
    """What the hook sees of a runner."""
    return SimpleNamespace(message_hub=MessageHub('rehearsal'))


def note(runner, hook, losses) -> None:
    """Goes through iterations with these losses."""
    for i, loss in enumerate(losses):
        hook.after_train_iter(runner, i, outputs=dict(loss=loss))


def test_an_iteration_waits_for_nothing(runner):
    losses = [torch.zeros((), device='meta') for _ in range(5)]

    with Rehearsal('lazy_runtime_info_hook.after_train_iter') as first:
        note(runner, LazyRuntimeInfoHook(), losses[:1])
    with Rehearsal():
        note(runner, LazyRuntimeInfoHook(), losses[1:])
    with Rehearsal('lazy_runtime_info_hook._log_history') as reading:
        history = runner.message_hub.get_scalar('train/loss')
        means = [history.mean(3) for _ in range(2)]

    assert sum(first.waits.values()) == 1  # of the run
    assert sum(reading.waits.values()) == 4  # each once
    assert means == [0, 0]


def test_every_iteration_of_mmengines_own_waits(runner):
    """So the test above would notice."""
    loss = torch.zeros((), device='meta')

    with (
        pytest.raises(AssertionError, match='a number is read'),
        Rehearsal(),
    ):
        note(runner, RuntimeInfoHook(), [loss])


@pytest.mark.parametrize('look', [False, True])
def test_the_history_is_that_of_mmengine(runner, look):
    numbers = torch.randn(7, generator=torch.Generator().manual_seed(0))
    kinds = [*numbers, numbers[3].reshape(1), numbers[4].double(), 0.1, 2]
    theirs = SimpleNamespace(message_hub=MessageHub('theirs'))
    note(theirs, RuntimeInfoHook(), kinds)
    expected = theirs.message_hub.get_scalar('train/loss')

    for loss in kinds:
        note(runner, LazyRuntimeInfoHook(), [loss])
        if look:
            current = runner.message_hub.get_scalar('train/loss').current()
            assert current == float(loss)
    history = runner.message_hub.get_scalar('train/loss')

    for ours, their in zip(history.data, expected.data, strict=True):
        assert np.array_equal(ours, their)
    assert history.mean(4) == expected.mean(4)
    assert history.max() == expected.max()
    assert history.statistics('min', 2) == expected.min(2)


def test_a_loss_that_is_changed_later_was_what_it_was(runner):
    buffer = torch.zeros(())

    for i in range(3):
        buffer.fill_(i)
        note(runner, LazyRuntimeInfoHook(), [buffer])

    history = runner.message_hub.get_scalar('train/loss')
    assert history.data[0].tolist() == [0, 1, 2]


def test_no_graph_is_kept(runner):
    weight = torch.ones((), requires_grad=True)

    note(runner, LazyRuntimeInfoHook(), [2 * weight, 3 * weight])

    history = runner.message_hub.get_scalar('train/loss')
    assert not any(each.requires_grad for each in history._pending)


@pytest.mark.parametrize(
    'copy', [deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_a_copy_is_mmengines_own(runner, copy):
    note(
        runner, LazyRuntimeInfoHook(), [torch.tensor(float(i)) for i in (1, 2)]
    )
    history = runner.message_hub.get_scalar('train/loss')
    history.put(torch.tensor(3.0))

    copied = copy(history)

    assert type(copied) is HistoryBuffer
    assert copied.data[0].tolist() == [1, 2, 3]
    assert copied.data[1].tolist() == [1, 1, 1]
    assert copied.max_length == history.max_length


def test_a_resumed_run_has_all_losses(tiny_sd1, tmp_path):
    def losses(step):
        hub = torch.load(Path(cfg.work_dir, f'iter_{step}.pth'))['message_hub']
        return hub['log_scalars']['train/loss']['log_history']

    cfg = config(tmp_path, tiny_sd1, iters=4)
    cfg.default_hooks.checkpoint.interval = 2
    learn(cfg)
    whole = losses(4)

    cfg.default_hooks.runtime_info.type = 'mmengine.RuntimeInfoHook'
    cfg.work_dir = str(tmp_path / 'stock')
    train(cfg, resume=str(tmp_path / 'run' / 'iter_2.pth'))

    assert len(whole) == 4
    assert losses(4) == whole


class Everywhere(Rehearsal):
    """One that counts, and refuses no place."""

    def wait(self, why: str) -> None:
        self.waits[why] += 1


@HOOKS.register_module()
class WatchedIterations(Hook):
    """Notes what each iteration, with all its hooks, has waited for."""

    priority = 'LOWEST'
    rehearsal: Rehearsal
    seen: list[Counter]

    def before_train(self, runner) -> None:
        self.rehearsal.waits.clear()

    def after_train_iter(self, runner, batch_idx, **unused) -> None:
        self.seen.append(self.rehearsal.waits.copy())
        self.rehearsal.waits.clear()


@pytest.mark.filterwarnings('ignore')
def test_a_run_waits_at_its_ends_alone(tiny_sd1, tmp_path, monkeypatch):
    """With all hooks of a config: what they do is done at intervals."""
    monkeypatch.setattr(
        'mmhiper.engine.launch.best_device', lambda: torch.device('meta')
    )
    rehearsal = Everywhere(reads=1.0)
    monkeypatch.setattr(WatchedIterations, 'rehearsal', rehearsal, False)
    monkeypatch.setattr(WatchedIterations, 'seen', [], False)
    cfg = config(tmp_path, tiny_sd1, iters=4)
    cfg.custom_hooks.append(dict(type='WatchedIterations'))

    with rehearsal:
        train(cfg)

    first, *between, last = WatchedIterations.seen
    assert between == [{}, {}]
    assert first and last  # which encode the picture, and save
