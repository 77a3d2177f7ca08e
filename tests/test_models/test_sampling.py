"""The sampling loop against formulas written out here."""

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from tolerances import EXACT, ONE_STEP

from mmhiper.models import guided, run_scheduler
from mmhiper.models.sampling import Start

CONFIG = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule='scaled_linear',
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures('float64')
def test_guidance_moves_away_from_the_unconditional_branch():
    calls = []

    def denoise(latents, timestep):
        calls.append(len(latents))
        offsets = torch.tensor([1.0, 1.0, 3.0, 5.0]).reshape(4, 1, 1, 1)
        return latents + offsets

    latents = noise(0, 2, 4, 2, 2)

    output = guided(denoise, 2.0)(latents, torch.tensor(5))

    # 1 + 2 (3 - 1) and 1 + 2 (5 - 1)
    offsets = torch.tensor([5.0, 9.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(output, latents + offsets, **EXACT)
    assert calls == [4]  # one call on the doubled batch


@pytest.mark.usefixtures('float64')
def test_steps_are_those_of_the_ddim_paper():
    scheduler = DDIMScheduler(**CONFIG)
    target = noise(1, 1, 4, 2, 2)
    start = noise(2, 1, 4, 2, 2)
    seen = []

    end = run_scheduler(
        lambda z, t: target,
        start,
        scheduler,
        4,
        callback=lambda done, t, z: seen.append((done, int(t), z)),
    )

    alphas = scheduler.alphas_cumprod.double()
    z = start
    for t in (751, 501, 251, 1):
        now = alphas[t]
        previous = alphas[t - 250] if t >= 250 else alphas[0]
        clean = (z - (1 - now).sqrt() * target) / now.sqrt()
        z = previous.sqrt() * clean + (1 - previous).sqrt() * target
    torch.testing.assert_close(end, z, rtol=0, atol=4 * ONE_STEP)
    assert [(done, t) for done, t, _ in seen] == [
        (1, 751),
        (2, 501),
        (3, 251),
        (4, 1),
    ]
    assert torch.equal(seen[-1][2], end)


@pytest.mark.usefixtures('float64')
def test_the_same_loop_inverts():
    constant = noise(3, 1, 4, 2, 2)
    clean = noise(4, 1, 4, 2, 2)

    noised = run_scheduler(
        lambda z, t: constant, clean, DDIMInverseScheduler(**CONFIG), 10
    )
    back = run_scheduler(
        lambda z, t: constant, noised, DDIMScheduler(**CONFIG), 10
    )

    assert (noised - clean).abs().max() > 0.1
    torch.testing.assert_close(back, clean, rtol=0, atol=20 * ONE_STEP)


@pytest.mark.parametrize('single', [True, False])
def test_noise_on_the_way_comes_from_the_generators(single):
    start = noise(5, 2, 4, 2, 2)

    def run(seed, eta=1.0):
        generator = torch.Generator().manual_seed(seed)
        if not single:
            other = torch.Generator().manual_seed(seed + 1)
            generator = [generator, other]
        return run_scheduler(
            lambda z, t: 0.1 * z,
            start,
            DDIMScheduler(**CONFIG),
            3,
            eta=eta,
            generator=generator,
        )

    before = torch.get_rng_state()
    assert torch.equal(run(0), run(0))
    assert not torch.allclose(run(0), run(7), atol=1e-3)
    assert torch.equal(run(0, eta=0.0), run(7, eta=0.0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures('float64')
def test_a_picture_is_noised_to_where_the_steps_begin():
    """And under a mask, after each step, to where the next one begins."""
    scheduler = DDIMScheduler(**CONFIG)
    target, unit = noise(6, 1, 4, 2, 2), noise(7, 1, 4, 2, 2)
    clean = noise(8, 1, 4, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    seen = []

    ends = [
        run_scheduler(
            lambda z, t: target,
            unit,
            scheduler,
            4,
            callback=lambda done, t, z: seen.append((done, int(t))),
            start=Start(clean, 0.5, given),
        )
        for given in (None, mask)
    ]

    alphas = scheduler.alphas_cumprod.double()
    for end, share in zip(ends, (torch.ones_like(mask), mask), strict=True):
        z = alphas[251].sqrt() * clean + (1 - alphas[251]).sqrt() * unit
        # timestep, where the step goes, and what is there of the picture
        noised = alphas[1].sqrt() * clean + (1 - alphas[1]).sqrt() * unit
        for now, then, kept in ((251, 1, noised), (1, 0, clean)):
            a, b = alphas[now], alphas[then]
            drawn = (z - (1 - a).sqrt() * target) / a.sqrt()
            z = b.sqrt() * drawn + (1 - b).sqrt() * target
            z = share * z + (1 - share) * kept
        torch.testing.assert_close(end, z, rtol=0, atol=3 * ONE_STEP)
    assert seen == [(1, 251), (2, 1)] * 2
