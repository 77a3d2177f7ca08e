"""The mean of a run's iterates, and an end where it gets no better."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from editors import run_of
from mmengine.hooks import Hook
from runs import config, embedding_of, last, learn, learned_in, state_in

from mmhiper.apis import load_editor
from mmhiper.engine import AverageHook, PlateauHook
from mmhiper.engine.fixed_losses import fixed_losses
from mmhiper.engine.hooks.average_hook import KEY
from mmhiper.engine.launch import train
from mmhiper.engine.together import check_together
from mmhiper.registry import HOOKS


@HOOKS.register_module()
class IteratesHook(Hook):
    """Keeps what each iteration has learned, before anything is averaged."""

    priority = 'HIGH'
    seen: list = []

    def after_train_iter(self, runner, *args, **kwargs):
        self.seen.append(learned_in(runner.model.state_dict()).clone())


def run(folder: Path, backbone: Path, iters: int, hook=None, every=2):
    """A config with a checkpoint at every second iteration."""
    folder.mkdir(exist_ok=True)
    cfg = config(folder, backbone, iters)
    cfg.default_hooks.checkpoint.interval = every
    if hook is not None:
        cfg.custom_hooks = [*cfg.custom_hooks, hook]
    return cfg


def iterates(tmp_path, backbone, count: int) -> list[torch.Tensor]:
    """Those of a run with nothing averaged."""
    IteratesHook.seen.clear()
    cfg = run(tmp_path, backbone, count, dict(type='IteratesHook'))
    learn(cfg)
    return [*IteratesHook.seen]


# -------------------------------------------------------------------- the mean
@pytest.mark.parametrize(
    ('options', 'weights'),
    [
        (dict(), [1 / 5] * 5),
        (dict(begin=2), [0, 0, 1 / 3, 1 / 3, 1 / 3]),
        (dict(begin=7), [0, 0, 0, 0, 1]),
        # 1, 1/2, then 0.4 each
        (
            dict(momentum=0.4),
            [0.5 * 0.6**3, 0.5 * 0.6**3, 0.4 * 0.36, 0.4 * 0.6, 0.4],
        ),
    ],
)
def test_a_run_ends_with_the_mean(tmp_path, tiny_sd1, options, weights):
    seen = iterates(tmp_path, tiny_sd1, 5)
    wanted = sum(
        w * each.double() for w, each in zip(weights, seen, strict=True)
    )

    cfg = run(tmp_path, tiny_sd1, 5, dict(type='AverageHook', **options))
    found = learn(cfg)

    assert sum(weights) == pytest.approx(1)
    # five additions in single precision
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-6)
    exported = load_editor(last(cfg).with_suffix('.safetensors'))
    assert torch.equal(exported.embedding.tail.cpu(), found)
    # the optimiser's own way is what it was
    own = torch.load(last(cfg), weights_only=True)[KEY]
    assert torch.equal(learned_in(own), seen[-1])


def test_a_resumed_mean_is_the_same(tmp_path, tiny_sd1):
    hook = dict(type='AverageHook', begin=1, momentum=0.3)
    whole = learn(run(tmp_path / 'a', tiny_sd1, 6, hook))
    learn(run(tmp_path / 'b', tiny_sd1, 4, hook))
    again = learn(run(tmp_path / 'b', tiny_sd1, 6, hook), resume='auto')

    assert torch.equal(again, whole)


def test_a_start_from_a_checkpoint_starts_from_its_mean(tmp_path, tiny_sd1):
    hook = dict(type='AverageHook')
    first = run(tmp_path / 'a', tiny_sd1, 4, hook)
    mean = learn(first)
    IteratesHook.seen.clear()
    cfg = run(tmp_path / 'b', tiny_sd1, 1, hook)
    cfg.load_from = str(last(first))
    cfg.optim_wrapper.optimizer.lr = 1e-12
    found = learn(cfg)

    # one step of Adam moves a number by its rate
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize('damage', ['missing', 'shape'])
def test_an_iterate_of_something_else_is_told(tmp_path, tiny_sd1, damage):
    cfg = run(tmp_path, tiny_sd1, 2, dict(type='AverageHook'))
    learn(cfg)
    content = torch.load(last(cfg), weights_only=True)
    ((name, tensor),) = content[KEY].items()
    content[KEY] = {} if damage == 'missing' else {name: tensor[..., :1]}
    torch.save(content, last(cfg))

    cfg = run(tmp_path, tiny_sd1, 4, dict(type='AverageHook'))
    with pytest.raises(ValueError, match='does not belong to what is learned'):
        learn(cfg, resume='auto')


def test_a_curriculum_has_no_mean(tmp_path, tiny_sd1):
    cfg = run_of('NullTextInversion', tiny_sd1, tmp_path)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='AverageHook')]
    with pytest.raises(ValueError, match='one timestep after another'):
        train(cfg)


# --------------------------------------------------------------------- the end
def measured(tmp_path, backbone, losses, iters=12, resume=None, **options):
    """A run whose loss on fixed noise is said."""
    hook = dict(type='PlateauHook', interval=2, **options)
    cfg = run(tmp_path, backbone, iters, hook)

    def say(runner, step, draws):
        fixed_losses(runner, step, draws)  # which changes nothing
        return torch.tensor([float(losses[step // 2])])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmhiper.engine.hooks.plateau_hook.fixed_losses', say)
        return cfg, train(cfg, resume=resume)


@pytest.mark.parametrize(
    ('losses', 'patience', 'end'),
    [
        ([9, 8, 7, 6, 5, 4, 3], 1, 12),  # which falls to the end
        ([9, 8, 8, 8, 5, 4, 3], 2, 6),
        ([9, 8, 8, 7, 7, 7, 7], 2, 10),
        ([9, 8.95, 8.95, 1, 1, 1, 1], 2, 4),  # less than the share
    ],
)
def test_a_run_ends_on_a_plateau(tmp_path, tiny_sd1, losses, patience, end):
    _, runner = measured(tmp_path, tiny_sd1, losses, patience=patience)

    assert runner.iter == end
    # and as a run of that length: with a checkpoint of its last iteration
    checkpoint = Path(runner.message_hub.get_info('last_ckpt'))
    assert checkpoint.name == f'iter_{end}.pth'
    plain = learn(run(tmp_path / 'plain', tiny_sd1, end))
    assert torch.equal(embedding_of(checkpoint), plain)


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path, tiny_sd1):
    losses = [9, 8, 8, 8, 5, 4, 3]
    _, first = measured(tmp_path, tiny_sd1, losses, iters=4, patience=2)
    assert first.iter == 4
    _, second = measured(tmp_path, tiny_sd1, losses, patience=2, resume='auto')
    assert second.iter == 6
    # after its end nothing more is done
    _, third = measured(tmp_path, tiny_sd1, losses, patience=2, resume='auto')
    assert third.iter == 6


def test_looking_for_the_end_changes_nothing(tmp_path, tiny_sd1):
    hook = dict(type='PlateauHook', interval=1, patience=9)
    seen = learn(run(tmp_path / 'a', tiny_sd1, 3, hook))
    assert torch.equal(seen, learn(run(tmp_path / 'b', tiny_sd1, 3)))


def test_an_editor_without_such_losses_is_told(tmp_path, tiny_sd1):
    cfg = run_of('NullTextInversion', tiny_sd1, tmp_path)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='PlateauHook')]
    with pytest.raises(ValueError, match='no losses on fixed noise'):
        train(cfg)


# --------------------------------------------------- other ways to go faster
def test_a_schedule_of_the_rate_is_resumed_exactly(tmp_path, tiny_sd1):
    """MMEngine's own, as a config names it."""
    schedule = [
        dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=2),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=6),
    ]

    def scheduled(folder, iters):
        cfg = run(folder, tiny_sd1, iters)
        cfg.param_scheduler = schedule
        return cfg

    whole = learn(scheduled(tmp_path / 'a', 6))
    learn(scheduled(tmp_path / 'b', 2))
    again = learn(scheduled(tmp_path / 'b', 6), resume='auto')
    assert torch.equal(again, whole)
    assert not torch.equal(whole, learn(run(tmp_path / 'c', tiny_sd1, 6)))
    with pytest.raises(ValueError, match='`param_scheduler` must be empty'):
        check_together(scheduled(tmp_path, 2))


def test_a_start_is_the_mean_of_what_others_learned(tmp_path, tiny_sd1):
    files, tails = [], []
    for number in range(2):
        cfg = run(tmp_path / str(number), tiny_sd1, 2)
        cfg.randomness.seed = number
        tails.append(learn(cfg))
        files.append(
            str(last(cfg).with_suffix(('.pth', '.safetensors')[number]))
        )

    cfg = run(tmp_path / 'next', tiny_sd1, 2)
    cfg.model.embedding = files
    cfg.optim_wrapper.optimizer.lr = 1e-12
    found = learn(cfg)
    wanted = torch.stack(tails).mean(0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    # its own file needs none of theirs
    assert 'embedding' not in load_editor(last(cfg)).given_arguments()
    assert state_in(last(cfg)).keys() == {'embedding.tail'}

    for values in ({'model.n_hiper': 2}, {'model.embedding': []}):
        cfg = run(tmp_path / 'wrong', tiny_sd1, 2)
        cfg.model.embedding = files
        cfg.merge_from_dict(values)
        with pytest.raises(ValueError, match=r'does not belong|at least one'):
            train(cfg)


@pytest.mark.parametrize(
    ('hook', 'options', 'words'),
    [
        (AverageHook, dict(begin=-1), 'at least 0 iterations, but got -1'),
        (AverageHook, dict(momentum=1.0), r'in \[0, 1\), but got 1.0'),
        (PlateauHook, dict(patience=0), '`patience` of PlateauHook must be'),
        (PlateauHook, dict(min_delta=1.5), r'in \[0, 1\), but got 1.5'),
    ],
)
def test_wrong_numbers_are_told(hook, options, words):
    with pytest.raises(ValueError, match=words):
        hook(**options)
