"""Weights of the denoising loss, against their formulas written out."""

import math

import pytest
import torch
from tiny import at_step, batch_of, make_hiper, make_word, picture

from mmhiper.models.loss_weights import snr_weights

# A schedule by hand, from nearly clean to pure noise.
ABAR = [0.999, 0.9, 0.5, 0.1, 0.01]
EVERY = torch.arange(len(ABAR))


def weights(kind, **options):
    return snr_weights(torch.tensor(ABAR), EVERY, kind, **options)


@pytest.mark.parametrize('gamma', [1.0, 5.0])
def test_min_snr_is_that_of_the_paper(gamma):
    snr = [abar / (1 - abar) for abar in ABAR]
    noise = [min(each, gamma) / each for each in snr]
    velocity = [min(each, gamma) / (each + 1) for each in snr]

    # abar is given in fp32, and 1 - 0.999 loses three of its digits
    options = dict(rtol=1e-3, atol=0)
    found = weights('epsilon', min_snr_gamma=gamma)
    assert torch.allclose(found, torch.tensor(noise), **options)
    found = weights('v_prediction', min_snr_gamma=gamma)
    assert torch.allclose(found, torch.tensor(velocity), **options)


def test_debiased_is_that_of_the_paper():
    noise = [1 / math.sqrt(abar / (1 - abar)) for abar in ABAR]
    found = weights('epsilon', debiased=True)
    assert torch.allclose(found, torch.tensor(noise), rtol=1e-3, atol=0)


@pytest.mark.parametrize('options', [dict(min_snr_gamma=5), dict(debiased=1)])
def test_a_velocity_weighs_as_the_noise_that_it_implies(options):
    """One network, its output read as a velocity and as the noise."""
    generator = torch.Generator().manual_seed(0)
    shape = len(ABAR), 4, 8, 8
    z, noise, error = torch.randn((3, *shape), generator=generator).double()
    alpha = torch.tensor(ABAR).double().sqrt()[:, None, None, None]
    sigma = (1 - alpha.square()).sqrt()
    noised = alpha * z + sigma * noise
    velocity = alpha * noise - sigma * z
    predicted = velocity + error
    implied = alpha * predicted + sigma * noised  # its noise

    of_noise = (implied - noise).square().flatten(1).mean(1)
    of_velocity = error.square().flatten(1).mean(1)
    assert torch.allclose(
        weights('epsilon', **options) * of_noise,
        weights('v_prediction', **options) * of_velocity,
        rtol=1e-5,
    )


@pytest.mark.parametrize('options', [dict(min_snr_gamma=5), dict(debiased=1)])
def test_pure_noise_has_a_weight(options):
    """The last timestep of a schedule with an SNR of 0."""
    abar, last = torch.tensor([0.5, 0.0]), torch.tensor([1])
    assert snr_weights(abar, last, 'v_prediction', **options).isfinite().all()
    if 'min_snr_gamma' in options:
        assert snr_weights(abar, last, 'epsilon', **options).tolist() == [1]


# ------------------------------------------------------------- in an editor
def losses_of(make, folder, iteration, **options):
    """Each picture's loss at a step, and its timestep."""
    editor = make(folder, **options)
    at_step(iteration)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]), True)
    for sample in data['data_samples']:
        sample.set_metainfo(dict(prompts=('a <cat-toy>',)))
    timesteps = editor._draw_step(**data).timesteps
    return editor.image_losses(**data), timesteps


@pytest.mark.parametrize('make', [make_hiper, make_word])
@pytest.mark.parametrize('family', ['sd1', 'sd2'])
def test_every_editor_that_denoises_has_them(make, family, request):
    """The loss times the weight of the drawn timestep, by hand."""
    folder = request.getfixturevalue(f'tiny_{family}')
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2
    abar = (1 - betas).cumprod(0)
    for iteration in range(3):
        plain, t = losses_of(make, folder, iteration)
        snr = (abar[t] / (1 - abar[t])).float()
        below = snr + 1 if family == 'sd2' else snr
        found, _ = losses_of(make, folder, iteration, min_snr_gamma=5)
        expected = plain * snr.clamp(max=5) / below
        assert torch.allclose(found, expected, rtol=1e-3)
        found, _ = losses_of(make, folder, iteration, debiased=True)
        assert torch.allclose(found, plain * snr.sqrt() / below, rtol=1e-3)


def test_the_offset_is_one_number_per_channel(tiny_sd1):
    def noise_of(**options):
        editor = make_hiper(tiny_sd1, **options)
        data = editor.data_preprocessor(batch_of([picture(0)], [0]), True)
        drawn = []
        for iteration in range(100):
            at_step(iteration)
            drawn.append(editor._draw_step(**data).noise)
        return torch.cat(drawn)

    # (100, 4, h, w); the same noise besides
    offset = noise_of(noise_offset=0.5) - noise_of()
    levels = offset.mean((2, 3))
    assert torch.allclose(offset, levels[..., None, None], atol=1e-6)
    # of 400 normal numbers, five standard deviations to each side
    assert abs(levels.mean()) < 5 * 0.5 / 400**0.5
    assert abs(levels.std() / 0.5 - 1) < 5 / 800**0.5


def test_the_network_is_asked_for_the_offset_too(tiny_sd1):
    """Noised with it, and the target holds it: as its authors do."""
    editor = make_hiper(tiny_sd1, noise_offset=0.5)
    at_step(0)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]), True)
    noise = editor._draw_step(**data).noise
    _, target = editor.predict_training_step(**data)
    assert torch.equal(target, noise)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(noise_offset=-0.1), '`noise_offset` must not be negative'),
        (dict(min_snr_gamma=0), '`min_snr_gamma` must be above 0'),
        (dict(min_snr_gamma=5, debiased=True), 'give one of them'),
    ],
)
def test_options_out_of_range_are_refused(tiny_sd1, options, words):
    with pytest.raises(ValueError, match=words):
        make_hiper(tiny_sd1, **options)
