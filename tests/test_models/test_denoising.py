"""What a step draws belongs to its picture; a mask counts the subject."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from tolerances import EXACT

from mmhiper.models import StableDiffusion
from mmhiper.models.backbones import Diffusion
from mmhiper.models.denoising import (
    LatentCache,
    draw_fixed,
    draw_step,
    masked_means,
)

PROCESS = Diffusion({}, {}, 'a model')  # of 1000 timesteps


# ------------------------------------------------------------------ the draws
def test_a_picture_draws_the_same_in_any_batch():
    z = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    both = draw_step([z[0], z[1]], ['a', 'b'], (0, 7), PROCESS, 0.1)
    other = draw_step([z[1], z[2]], ['b', 'c'], (0, 7), PROCESS, 0.1)

    assert torch.equal(both.noise[1], other.noise[0])
    assert both.timesteps[1] == other.timesteps[0]
    assert torch.equal(both.latents, torch.cat([z[0], z[1]]))
    for run in ((1, 7), (0, 8)):  # another seed, another iteration
        again = draw_step([z[0], z[1]], ['a', 'b'], run, PROCESS, 0.1)
        assert not torch.equal(again.noise, both.noise)


def test_fixed_draws_spread_over_the_timesteps():
    z = torch.zeros(1, 4, 8, 8)
    draws = [draw_fixed(z, 'a', 0, number, 4, PROCESS) for number in range(4)]

    # the middles of four quarters
    assert [int(d.timesteps) for d in draws] == [125, 375, 625, 875]
    again = draw_fixed(z, 'a', 0, 2, 4, PROCESS)
    assert torch.equal(again.noise, draws[2].noise)
    assert not torch.equal(draws[1].noise, draws[2].noise)


# ------------------------------------------------------------------ the cache
@pytest.fixture
def cache(tiny_sd1):
    return LatentCache(StableDiffusion(str(tiny_sd1)))


def named(key: str) -> BaseDataElement:
    return BaseDataElement(metainfo=dict(image_key=key))


def test_latents_are_encoded_once_by_seed_and_name(cache):
    pixels = torch.zeros(3, 64, 64)

    first = cache.encode(pixels, named('a'), 0)
    assert cache.encode(pixels + 1, named('a'), 0) is first
    assert not torch.equal(cache.encode(pixels, named('a'), 1), first)
    assert not torch.equal(cache.encode(pixels, named('b'), 0), first)
    cache.clear()
    assert torch.equal(cache.encode(pixels, named('a'), 0), first)
    with pytest.raises(ValueError, match='needs `image_key`'):
        cache.encode(pixels, BaseDataElement(), 0)


def test_ever_new_pictures_do_not_pile_up(cache, monkeypatch):
    monkeypatch.setattr('mmhiper.models.denoising.MAX_CACHED', 3)

    for number in range(7):
        cache.encode(torch.zeros(3, 64, 64), named(str(number)), 0)

    assert len(cache.values()) <= 3


# ------------------------------------------------------------------- the mean
@pytest.mark.usefixtures('float64')
def test_a_masked_mean_is_over_the_subject_whatever_its_size():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 4, 8, 8, generator=generator)
    output = target + 3  # an error of 9 everywhere
    output[1, :, :, 5:] += torch.randn(4, 8, 3, generator=generator)
    mask = torch.zeros(64, 64)
    mask[:, :40] = 1  # five of eight columns

    plain, masked = masked_means(output, target, [None, mask])

    torch.testing.assert_close(plain, torch.tensor(9.0), **EXACT)
    torch.testing.assert_close(masked, torch.tensor(9.0), **EXACT)


@pytest.mark.usefixtures('float64')
def test_a_latent_counts_by_its_share_of_the_subject():
    target = torch.zeros(1, 4, 1, 2)
    output = torch.tensor([1.0, 3.0]).expand(1, 4, 1, 2)  # errors 1 and 9
    mask = torch.zeros(8, 16)
    mask[:, :10] = 1  # all of the first, a quarter of the second

    (loss,) = masked_means(output, target, [mask])

    expected = torch.tensor((1 + 9 / 4) / 1.25)
    torch.testing.assert_close(loss, expected, **EXACT)
