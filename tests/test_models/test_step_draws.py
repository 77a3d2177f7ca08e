"""Several draws of a picture in a step: their times, and their mean."""

from __future__ import annotations

import pytest
import torch
from tiny import at_step, batch_of, make_hiper, make_word, picture, train
from tolerances import EXACT

from mmhiper.models.backbones import Diffusion
from mmhiper.models.backbones.noise import Flow
from mmhiper.models.denoising import StepDraws, draw_step
from mmhiper.utils.randomness import generator_of

PROCESS = Diffusion({}, {}, 'a model')  # of 1000 timesteps
FLOW = Flow(dict(shift=3.0), {})
Z = torch.zeros(1, 4, 8, 8)


def times(process=PROCESS, iteration=0, **options) -> list[float]:
    """The times of one picture in a step."""
    draws = StepDraws(**options)
    drawn = draw_step([Z], ['a'], (0, iteration), process, draws=draws)
    return drawn.timesteps.tolist()


def share_of(process, time: float) -> float:
    """By bisection, the share of times below one."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if float(process.time_at(middle)) < time:
            low = middle
        else:
            high = middle
    return high


# ------------------------------------------------------------------ the draws
def test_one_draw_is_what_it_was():
    """The numbers in their order, by hand."""
    drawn = draw_step([Z, Z], ['a', 'b'], (3, 7), PROCESS, 0.5)

    for row, key in enumerate('ab'):
        generator = generator_of(3, key, 7)
        time = torch.randint(1000, (1,), generator=generator)
        noise = torch.randn(Z.shape, generator=generator)
        offset = torch.randn((1, 4, 1, 1), generator=generator)
        assert drawn.timesteps[row] == time
        assert torch.equal(drawn.noise[row], (noise + 0.5 * offset)[0])


@pytest.mark.parametrize('process', [PROCESS, FLOW])
def test_the_first_of_several_is_the_one_alone(process):
    z = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    one = draw_step([*z], ['a', 'b'], (0, 1), process)
    four = draw_step(
        [*z], ['a', 'b'], (0, 1), process, draws=StepDraws(per_step=4)
    )

    assert torch.equal(four.noise[::4], one.noise)
    assert torch.equal(four.timesteps[::4], one.timesteps)
    # those of a picture stand together, and all differ
    assert torch.equal(four.latents, one.latents.repeat_interleave(4, 0))
    flat = four.noise.flatten(1)
    assert len(flat.unique(dim=0)) == len(flat) == 8


@pytest.mark.parametrize('process', [PROCESS, FLOW])
@pytest.mark.parametrize('within', [(0.0, 1.0), (0.2, 0.7)])
def test_stratified_times_are_one_in_each_part(process, within):
    low, high = within
    edges = [
        float(process.time_at(low + (high - low) * part / 8))
        for part in range(9)
    ]
    for iteration in range(50):
        found = times(
            process, iteration, per_step=8, times='stratified', within=within
        )
        for part, time in enumerate(found):
            assert edges[part] <= time <= edges[part + 1]
    assert found != times(
        process, 0, per_step=8, times='stratified', within=within
    )


@pytest.mark.parametrize('within', [(0.0, 1.0), (0.2, 0.7)])
def test_antithetic_times_mirror_each_other(within):
    for iteration in range(50):
        found = times(
            iteration=iteration, per_step=4, times='antithetic', within=within
        )
        first = found[::2]
        assert first[0] != first[1]
        for time, mirrored in zip(first, found[1::2], strict=True):
            # 1000 timesteps, counted from below and from above
            assert abs(time + mirrored - (1000 * sum(within) - 1)) <= 1


@pytest.mark.parametrize('process', [PROCESS, FLOW])
def test_a_range_is_kept_and_filled_as_in_training(process):
    low, high = 0.1, 0.6
    found = [
        t for i in range(2000) for t in times(process, i, within=(low, high))
    ]
    bounds = [float(process.time_at(share)) for share in (low, high)]
    assert bounds[0] <= min(found) and max(found) <= bounds[1]
    # uniform by the distribution of training: the Kolmogorov distance of
    # 2000 draws is above 1.95 / sqrt(2000) with a chance of 0.001
    shares = torch.tensor([share_of(process, t) for t in found]).sort().values
    even = torch.linspace(low, high, len(shares))
    assert (shares - even).abs().max() < (high - low) * 1.95 / 2000**0.5


def test_quantiles_are_those_of_what_is_drawn():
    for process in (PROCESS, FLOW):
        drawn = torch.cat(
            [process.draw_time(generator_of(i)).double() for i in range(4000)]
        )
        for share in (0.1, 0.5, 0.9):
            below = (drawn < float(process.time_at(share))).double().mean()
            # four standard errors, and the grain of 1000 timesteps
            assert abs(float(below) - share) < 4 * 0.5 / 4000**0.5 + 2e-3
        assert float(process.time_at(0.0)) < float(process.time_at(1.0))


# ----------------------------------------------------------------- the editors
def gradient(editor, pictures, iteration=5) -> torch.Tensor:
    """Of what is learned, in one step."""
    at_step(iteration)
    data = editor.data_preprocessor(
        batch_of(pictures, [*range(len(pictures))]), True
    )
    for sample in data['data_samples']:
        sample.set_metainfo(dict(prompts=['a <cat-toy>', 'x <cat-toy>']))
    loss, _ = editor.parse_losses(editor(**data, mode='loss'))
    (weight,) = editor.parameters()
    return torch.autograd.grad(loss, weight)[0]


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('make', [make_hiper, make_word])
@pytest.mark.parametrize('kind', ['random', 'stratified', 'antithetic'])
def test_a_step_is_the_mean_of_its_draws(tiny_sd1, monkeypatch, make, kind):
    """Of the gradients of single ones, each in a step of its own."""
    options = dict(min_snr_gamma=5.0, noise_offset=0.1)
    editor = make(
        tiny_sd1, draws_per_step=4, draw_times=kind, time_range=[0, 0.9],
        **options,
    )  # fmt: skip
    found = gradient(editor, [picture(0)])

    singles = []
    plain = make(tiny_sd1, **options)
    for number in range(4):

        def one(*args, number=number):
            both = draw_step(*args[:-1], draws=editor.draws)
            return type(both)(
                *(
                    each[number : number + 1]
                    for each in (both.latents, both.noise, both.timesteps)
                )
            )

        monkeypatch.setattr('mmhiper.models.editors.denoising.draw_step', one)
        singles.append(gradient(plain, [picture(0)]))
    monkeypatch.undo()

    torch.testing.assert_close(found, torch.stack(singles).mean(0), **EXACT)
    assert not torch.allclose(singles[0], singles[1])


@pytest.mark.usefixtures('float64')
def test_company_changes_nothing(tiny_sd1):
    options = dict(draws_per_step=2, draw_times='antithetic')
    pair = make_hiper(
        tiny_sd1, source_text=['a dog', 'a cat'], target_text=None, **options
    )
    both = gradient(pair, [picture(0), picture(1)])
    for number, text in enumerate(('a dog', 'a cat')):
        alone = make_hiper(tiny_sd1, source_text=text, **options)
        torch.testing.assert_close(
            both[number : number + 1],
            gradient(alone, [picture(number)]),
            **EXACT,
        )


@pytest.mark.usefixtures('float64')
def test_what_is_held_outside_is_held_in_each_draw(tiny_sd1):
    """Two equal draws count as one."""
    mask = torch.zeros(80, 80, dtype=torch.uint8)
    mask[:, :40] = 255
    found = []
    for count in (1, 2):
        editor = make_hiper(tiny_sd1, hold_outside=0.5, draws_per_step=count)
        at_step(0)
        data = batch_of([picture(0)], [0])
        data['data_samples'][0].set_data(dict(mask=mask))
        data = editor.data_preprocessor(data, True)
        drawn = editor._draw_step(**data)
        twin = type(drawn)(
            *(
                each[:1].repeat_interleave(count, 0)
                for each in (drawn.latents, drawn.noise, drawn.timesteps)
            )
        )
        editor._draw_step = lambda *args, twin=twin: twin
        found.append(editor.image_losses(**data))
    torch.testing.assert_close(*found, **EXACT)


def test_the_default_draws_once_per_step(tiny_sd1):
    rows = []
    for options in ({}, dict(draws_per_step=1, time_range=[0, 1])):
        editor = make_hiper(tiny_sd1, **options)
        rows.append(train(editor, [picture(0)], 2))
    assert torch.equal(*rows)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(draws_per_step=0), '`draws_per_step` must be at least 1'),
        (dict(draw_times='even'), '`draw_times` must be one of random, strat'),
        (dict(draw_times='stratified'), '`draws_per_step` of 2 or more'),
        (dict(draw_times='antithetic', draws_per_step=3), 'even, but got 3'),
        (dict(time_range=[0.7, 0.2]), '`time_range` must be a pair'),
        (dict(time_range=[]), '`time_range` must be a pair'),
    ],
)
def test_wrong_draws_are_told(tiny_sd1, options, words):
    for make in (make_hiper, make_word):
        with pytest.raises(ValueError, match=words):
            make(tiny_sd1, **options)
