"""DDIM inversion is its formula, and sampling undoes it."""

import pytest
import torch
from tiny import picture
from tolerances import EPS, ONE_STEP
from torch import Tensor

from mmhiper.models import StableDiffusion, run_scheduler
from mmhiper.models.attention import attention_layers
from mmhiper.models.inversion import Inversion, invert

# all numbers are of double precision
pytestmark = pytest.mark.usefixtures('float64')


def invert_picture(sd: StableDiffusion, pixels: Tensor) -> Inversion:
    """With the text 'a dog' in four steps."""
    layers = attention_layers(sd.unet, 8)
    return invert(sd, pixels, 'key', sd.encode_text(['a dog']), 4, layers)


def source() -> Tensor:
    """A picture of the model's size, (1, 3, 64, 64) in [-1, 1]."""
    return picture(0, 64)[None].double() / 127.5 - 1


def step_up(level, asked, z, eps):
    """The deterministic DDIM step that holds the noise fixed."""
    clean = (z - (1 - level).sqrt() * eps) / level.sqrt()
    return asked.sqrt() * clean + (1 - asked).sqrt() * eps


@torch.no_grad()
@pytest.mark.parametrize('family', ['sd1', 'sd2'])
def test_the_inversion_is_the_formula_of_ddim(family, request):
    sd = StableDiffusion(str(request.getfixturevalue(f'tiny_{family}')))
    inversion = invert_picture(sd, source())
    latents = inversion.latents

    assert inversion.image_key == 'key'
    assert inversion.maps == [{}] * 4  # none are asked for
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
    cumulative = sd.scheduler.alphas_cumprod.double()
    # of single precision: each of up to 1000 factors adds its rounding
    torch.testing.assert_close(
        cumulative, (1 - betas).cumprod(0), rtol=1000 * EPS, atol=0
    )
    text = sd.encode_text(['a dog'])
    assert len(latents) == 5
    assert torch.equal(latents[0], sd.encode_image(source()))
    # 1000 / 4 = 250 between steps, offset 1; the picture is at level 0
    level = cumulative[0]
    for k, t in enumerate([1, 251, 501, 751]):
        asked, z = cumulative[t], latents[k]
        eps = sd.predict(z, torch.tensor(t), text)
        if family == 'sd2':
            # v = sqrt(abar) eps - sqrt(1 - abar) x, and z = sqrt(abar) x +
            # sqrt(1 - abar) eps, both at the timestep that is asked about
            eps = asked.sqrt() * eps + (1 - asked).sqrt() * z
        torch.testing.assert_close(
            latents[k + 1],
            step_up(level, asked, z, eps),
            rtol=0,
            atol=ONE_STEP,
        )
        level = asked


@pytest.fixture(params=['epsilon', 'v_prediction', 'sample'])
def speaks(request, tiny_sd1):
    """Makes models that say of a given noise what their kind says."""

    def make_one(noise):
        kind = dict(prediction_type=request.param)
        sd = StableDiffusion(str(tiny_sd1), scheduler=kind)
        kept = (
            1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
        ).cumprod(0)

        def predict(z, t, condition=None):
            a, eps = kept[int(t)], noise(z, t)
            clean = (z - (1 - a).sqrt() * eps) / a.sqrt()
            return dict(
                epsilon=eps,
                v_prediction=a.sqrt() * eps - (1 - a).sqrt() * clean,
                sample=clean,
            )[request.param]

        sd.predict = predict
        return sd

    return make_one


@torch.no_grad()
def test_an_inversion_depends_on_the_noise_and_not_on_how_it_is_said(speaks):
    # |d eps / dz| <= 1, so rounding is not amplified by more than the steps
    def noise(z, t):
        return (z + t / 100).sin()

    latents = invert_picture(speaks(noise), source()).latents

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
    cumulative = (1 - betas).cumprod(0)
    z, level = latents[0], cumulative[0]
    for k, t in enumerate([1, 251, 501, 751]):
        z = step_up(level, cumulative[t], z, noise(z, t))
        level = cumulative[t]
        # to say it costs a division by sqrt(abar) > .1 (the noise of a clean
        # picture, by sqrt(1 - abar) > .04): 25 ulp of numbers below 8 are
        # 2.4e-5 a step, and four steps add them up
        torch.testing.assert_close(latents[k + 1], z, rtol=0, atol=2e-4)


@torch.no_grad()
def test_sampling_undoes_the_inversion(speaks):
    """With a constant noise."""
    constant = torch.randn(
        1, 4, 8, 8, generator=torch.Generator().manual_seed(0)
    )
    sd = speaks(lambda z, t: constant)
    latents = invert_picture(sd, source()).latents

    back = run_scheduler(sd.predict, latents[-1], sd.scheduler, 4)

    # four steps there and four back
    torch.testing.assert_close(back, latents[0], rtol=0, atol=8 * ONE_STEP)
