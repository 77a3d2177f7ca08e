"""Guidance: scales of backbones, rescaling, intervals of noise levels."""

import json
import math
import shutil

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
from tiny import make_hiper, pipeline_of, randomise
from tolerances import EPS, EXACT

from mmhiper.models import StableDiffusion, guided
from mmhiper.models.guidance import FILE, Guidance, noise_level, own_scale

STEPS = 5


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def copied(folder, target, says=None, **scheduler):
    """A model's folder, with another scheduler config or a guidance."""
    shutil.copytree(folder, target)
    path = target / 'scheduler/scheduler_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | scheduler))
    if says is not None:
        (target / FILE).write_text(says)
    return target


def draw(editor, **options):
    options = dict(num_inference_steps=STEPS, return_type='tensor') | options
    return editor.infer('a cat', show_progress=False, **options)['samples']


# ------------------------------------------------------------------- rescaling
@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('share', [0.3, 1.0])
def test_rescaling_is_that_of_diffusers(share):
    # standard deviations differ from picture to picture
    spreads = torch.tensor([1, 2, 3, 4.0]).reshape(4, 1, 1, 1)
    both = spreads * noise(0, 4, 4, 3, 5)
    empty, text = both.chunk(2)

    ours = guided(lambda z, t: both, 6.0, share)(text, torch.tensor(1))

    theirs = pipeline_stable_diffusion.rescale_noise_cfg(
        empty + 6.0 * (text - empty), text, guidance_rescale=share
    )
    torch.testing.assert_close(ours, theirs, **EXACT)
    if share == 1:
        spread = ours.flatten(1).std(1)
        torch.testing.assert_close(spread, text.flatten(1).std(1), **EXACT)


# -------------------------------------------------------------------- interval
def test_noise_levels_are_those_of_the_schedule():
    config = dict(beta_schedule='scaled_linear', beta_start=0.00085)
    scheduler = DDIMScheduler(**config, beta_end=0.012)
    kept = scheduler.alphas_cumprod.double()

    for t in (0, 1, 500, 999):
        wanted = math.sqrt((1 - kept[t]) / kept[t])
        assert noise_level(scheduler, torch.tensor(t)) == wanted
    # what the documents say about Stable Diffusion
    assert round(noise_level(scheduler, 0), 2) == 0.03
    assert round(noise_level(scheduler, 999), 1) == 14.6
    # beyond the last timestep there is none
    assert noise_level(scheduler, 999.5) == noise_level(scheduler, 999)


def test_noise_levels_between_timesteps_are_those_of_a_scheduler():
    scheduler = EulerDiscreteScheduler(
        beta_schedule='scaled_linear',
        beta_start=0.00085,
        beta_end=0.012,
        use_karras_sigmas=True,
    )
    scheduler.set_timesteps(12)
    timesteps = scheduler.timesteps
    assert any(t != t.round() for t in timesteps)

    for t, sigma in zip(timesteps, scheduler.sigmas, strict=False):
        # a timestep of single precision is known to EPS * t; the logarithm of
        # sigma rises by less than 0.4 in one at its steepest, the first, and
        # by less than 1 / t elsewhere
        bound = 4 * EPS + EPS * max(float(t), 1.0)
        found = noise_level(scheduler, t)
        assert found == pytest.approx(float(sigma), rel=bound)


def test_a_schedule_without_a_signal_at_its_end_has_a_last_level():
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True)

    assert 4000 < noise_level(scheduler, 999) <= 4096


@pytest.mark.usefixtures('float64')
def test_guidance_acts_in_the_interval_alone(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    randomise(editor)
    sd = editor.sd
    scheduler = sd.process.make_sampler()
    scheduler.set_timesteps(STEPS)
    levels = [noise_level(scheduler, t) for t in scheduler.timesteps]
    # the lower end is outside of it, the upper one within
    low, high = levels[3], levels[1]
    start = noise(3, 1, 4, 8, 8)
    sizes = []
    handle = sd.unet.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    try:
        drawn = draw(editor, latents=start, guidance_interval=(low, high))
    finally:
        handle.remove()

    with torch.no_grad():
        text = editor.condition(['a cat'])
        empty = sd.encode_nothing(1)
        z = start
        for number, t in enumerate(scheduler.timesteps):
            moved = with_text = sd.predict(z, t, text)
            if number in (1, 2):
                away = sd.predict(z, t, empty)
                moved = away + 7.5 * (with_text - away)
            z = scheduler.step(moved, t, z).prev_sample
        expected = sd.decode(z).clamp(-1, 1)
    torch.testing.assert_close(drawn, expected, **EXACT)
    # outside, the unconditional half is not computed
    assert sizes == [1, 2, 2, 1, 1]


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('rescale', [0.0, 0.7])
def test_an_interval_of_all_levels_changes_nothing(tiny_sd1, rescale):
    editor = make_hiper(tiny_sd1)
    options = dict(guidance_rescale=rescale, seed=3)

    everywhere = draw(editor, guidance_interval=(0, 100), **options)
    nowhere = draw(editor, guidance_interval=(50, 100), **options)

    assert torch.equal(everywhere, draw(editor, **options))
    assert torch.equal(nowhere, draw(editor, guidance_scale=1, seed=3))
    assert (everywhere - nowhere).abs().max() > 1e-3


def test_an_interval_goes_with_schedulers_of_second_order(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    heun = dict(scheduler='HeunDiscreteScheduler', seed=3)

    partly = draw(editor, guidance_interval=(0.3, 5.4), **heun)

    assert torch.isfinite(partly).all()
    for other in (dict(), dict(guidance_scale=1)):
        assert not torch.equal(partly, draw(editor, **heun, **other))


# -------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(guidance_scale=math.nan), '`guidance_scale` must be a number'),
        (dict(guidance_scale='3'), "`guidance_scale`.*'3'"),
        (dict(guidance_rescale=1.1), r'`guidance_rescale`.*\[0, 1\].*1\.1'),
        (dict(guidance_rescale=-0.1), '`guidance_rescale`'),
        (dict(guidance_rescale=True), '`guidance_rescale`.*True'),
        (dict(guidance_interval=3), r'`guidance_interval`.*pair.*got 3'),
        (dict(guidance_interval=(1,)), '`guidance_interval`'),
        (dict(guidance_interval=(2, 1)), r'0 <= low < high.*\(2, 1\)'),
        (dict(guidance_interval=(-1, 1)), '`guidance_interval`'),
        (dict(guidance_interval=(0, math.inf)), '`guidance_interval`'),
        (dict(guidance_interval='ab'), '`guidance_interval`'),
    ],
)
def test_mistakes_are_named(tiny_sd1, options, message):
    editor = make_hiper(tiny_sd1)

    with pytest.raises(ValueError, match=message) as error:
        draw(editor, **options)
    assert '\n' not in str(error.value)


def test_records_say_what_is_on():
    assert Guidance(3).plain() == dict(guidance_scale=3.0)
    both = Guidance(7.5, 0.7, (1, 2)).plain()
    assert both['guidance_rescale'] == 0.7
    assert both['guidance_interval'] == [1.0, 2.0]


# --------------------------------------------------------- scales of backbones
@pytest.mark.parametrize(
    ('family', 'scale'), [('sd1', 7.5), ('sd2', 7.5), ('sdxl', 5.0)]
)
def test_none_is_what_the_pipeline_of_the_family_takes(request, family, scale):
    folder = request.getfixturevalue(f'tiny_{family}')

    assert StableDiffusion(str(folder)).guidance_scale == scale


def test_models_that_were_distilled_are_not_guided(tiny_sd1, tmp_path):
    folder = copied(tiny_sd1, tmp_path / 'lcm', _class_name='LCMScheduler')
    assert StableDiffusion(str(folder)).guidance_scale == 1
    # a model with the weights of LCM merged in, which only its user knows
    merged = StableDiffusion(str(tiny_sd1), scheduler={'type': 'TCDScheduler'})
    assert merged.guidance_scale == 1
    takes_a_number = UNet2DConditionModel(
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=('DownBlock2D',),
        up_block_types=('UpBlock2D',),
        cross_attention_dim=8,
        time_cond_proj_dim=8,
    )
    for usual in (7.5, 5.0):
        known = ({}, 'DDIMScheduler', usual)
        assert own_scale('owner/name', takes_a_number, *known) == 1


@pytest.mark.usefixtures('float64')
def test_a_latent_consistency_model_draws_in_four_steps(tiny_sd1, tmp_path):
    """As its unmodified pipeline does: four passes, none for guidance."""
    folder = copied(tiny_sd1, tmp_path / 'lcm', _class_name='LCMScheduler')
    editor = make_hiper(folder, sd=dict(
        type='StableDiffusion',
        pretrained=str(folder),
        scheduler=dict(type='LCMScheduler'),
    ))  # fmt: skip
    passes: list[int] = []
    editor.sd.unet.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    ours = draw(editor, seed=3, num_inference_steps=4)
    assert passes == [1] * 4

    pipeline = pipeline_of(folder)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        prompt_embeds=editor.condition(['a cat']).tokens,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        output_type='pt',
    ).images
    torch.testing.assert_close(ours / 2 + 0.5, theirs, **EXACT)


@pytest.mark.usefixtures('float64')
def test_a_turbo_model_draws_in_one_step(tiny_sd1):
    """Whose folder looks like that of what it was distilled from."""
    options = dict(timestep_spacing='trailing')
    name = 'EulerDiscreteScheduler'
    editor = make_hiper(tiny_sd1)
    ours = draw(
        editor, seed=3, num_inference_steps=1, guidance_scale=1,
        scheduler=dict(type=name, **options),
    )  # fmt: skip
    pipeline = pipeline_of(tiny_sd1)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, **options
    )
    theirs = pipeline(
        prompt_embeds=editor.condition(['a cat']).tokens,
        num_inference_steps=1,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        output_type='pt',
    ).images
    torch.testing.assert_close(ours / 2 + 0.5, theirs, **EXACT)


@pytest.mark.usefixtures('float64')
def test_a_folder_may_say_its_own(tiny_sd1, tmp_path, capfd):
    folder = copied(
        tiny_sd1, tmp_path / 'own', '{"guidance_scale": 2}',
        _class_name='LCMScheduler',
    )  # fmt: skip
    editor = make_hiper(folder)

    assert editor.sd.guidance_scale == editor.default_guidance == 2
    plain = draw(editor, seed=3)
    assert torch.equal(plain, draw(editor, seed=3, guidance_scale=2))
    # a number always wins
    other = draw(editor, seed=3, guidance_scale=7.5)
    torch.testing.assert_close(
        other, draw(make_hiper(tiny_sd1), seed=3), **EXACT
    )
    assert (other - plain).abs().max() > 1e-3
    # previews too
    steps = dict(num_inference_steps=2)
    pictures = [
        [image.tobytes() for _, image in editor.preview(**steps, **options)]
        for options in ({}, {'guidance_scale': 2}, {'guidance_scale': 7.5})
    ]
    assert pictures[0] == pictures[1] != pictures[2]

    capfd.readouterr()
    pipeline_of(folder)  # diffusers has nothing to say about it
    shown = capfd.readouterr()
    assert 'guidance' not in shown.out + shown.err


@pytest.mark.parametrize(
    'says',
    [
        '{"guidance_scale": "3"}',
        '{"guidance_scale": true}',
        '{"guidance_scale": NaN}',
        '{"guidance_scale": 0.5}',
        '{"guidance_scale": 1e9}',
        '{"guidance_scale": 3, "type": "x"}',
        '{}',
        '[3]',
        '3',
        'three',
        '',
        '[' * 100_000,
    ],
)
def test_what_a_folder_says_is_checked(tiny_sd1, tmp_path, says):
    folder = copied(tiny_sd1, tmp_path / 'own', says)

    with pytest.raises(ValueError, match=FILE) as error:
        StableDiffusion(str(folder))
    assert '\n' not in str(error.value) and len(str(error.value)) < 1000


def test_a_folder_in_place_of_the_file(tiny_sd1, tmp_path):
    folder = copied(tiny_sd1, tmp_path / 'own')
    (folder / FILE).mkdir()

    with pytest.raises(ValueError, match='is a folder'):
        StableDiffusion(str(folder))
