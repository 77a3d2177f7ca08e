"""Any scheduler of diffusers: the pipeline's pictures, and mistakes."""

import diffusers
import pytest
import torch
from inversion import make
from tiny import make_hiper, pipeline_of
from tolerances import EXACT

from mmhiper.models import StableDiffusion
from mmhiper.models.schedulers import scheduler_names

STEPS = 4


def noise(editor, count: int = 1) -> torch.Tensor:
    shape = (count, *editor.sd.latent_shape(64, 64))
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def both(folder, scheduler, **values):
    """What an editor and the unmodified pipeline draw of a plain text."""
    editor, pipeline = make_hiper(folder), pipeline_of(folder)
    latents = noise(editor, 2)
    # UniPC mixes the default precision with that of its schedule
    torch.set_default_dtype(torch.float32)
    kind = getattr(diffusers, scheduler)
    # as its users do: from the config that the folder has
    pipeline.scheduler = kind.from_pretrained(
        folder, subfolder='scheduler', **values
    )
    options = dict(num_inference_steps=STEPS, guidance_scale=7.5)
    theirs = pipeline(
        ['a cat'] * 2,
        negative_prompt=['x'] * 2,
        latents=latents,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        output_type='pt',
        **options,
    ).images
    text, away = (editor.sd.encode_text([t] * 2) for t in ('a cat', 'x'))
    ours = editor.sample(
        text,
        away,
        latents=latents,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        scheduler=dict(type=scheduler, **values),
        **options,
    )
    return ours / 2 + 0.5, theirs


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize(
    ('scheduler', 'values'),
    [
        ('DPMSolverMultistepScheduler', {}),
        (
            'DPMSolverMultistepScheduler',
            dict(use_karras_sigmas=True, algorithm_type='sde-dpmsolver++'),
        ),
        ('UniPCMultistepScheduler', {}),
        ('EulerDiscreteScheduler', {}),  # scales inputs, fractional timesteps
        ('EulerDiscreteScheduler', dict(timestep_spacing='linspace')),
    ],
)
def test_it_draws_what_the_pipeline_draws(tiny_folder, scheduler, values):
    ours, theirs = both(tiny_folder, scheduler, **values)

    torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize(
    'scheduler',
    [
        'EulerAncestralDiscreteScheduler',  # draws noise on the way
        'HeunDiscreteScheduler',  # of second order
        'LCMScheduler',
        'PNDMScheduler',
    ],
)
def test_other_kinds_draw_what_the_pipeline_draws(tiny_sd2, scheduler):
    ours, theirs = both(tiny_sd2, scheduler)

    torch.testing.assert_close(ours, theirs, **EXACT)


def test_every_name_that_is_listed_works(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    names = scheduler_names()

    pictures = {
        name: editor.infer(
            'a cat',
            num_inference_steps=STEPS,
            scheduler=name,
            show_progress=False,
            return_type='tensor',
        )['samples']
        for name in names
    }

    assert {
        'DDIMScheduler',
        'DPMSolverMultistepScheduler',
        'EulerDiscreteScheduler',
        'UniPCMultistepScheduler',
    } <= set(names)
    assert all(picture.isfinite().all() for picture in pictures.values())


def test_a_config_may_name_the_scheduler_of_sampling_alone(tiny_sd1):
    plain = make_hiper(tiny_sd1)
    other = make_hiper(
        tiny_sd1,
        sd=dict(
            type='StableDiffusion',
            pretrained=str(tiny_sd1),
            scheduler=dict(
                type='DPMSolverMultistepScheduler', use_karras_sigmas=True
            ),
        ),
    )
    options = dict(
        latents=noise(plain),
        num_inference_steps=STEPS,
        show_progress=False,
        return_type='tensor',
    )

    named = plain.infer(
        'a cat',
        scheduler=dict(
            type='DPMSolverMultistepScheduler', use_karras_sigmas=True
        ),
        **options,
    )['samples']
    assert torch.equal(other.infer('a cat', **options)['samples'], named)
    ddim = plain.infer('a cat', **options)['samples']
    assert not torch.allclose(ddim, named, atol=1e-3)
    back = other.infer('a cat', scheduler='DDIMScheduler', **options)
    assert torch.equal(back['samples'], ddim)
    # training sees the same noise
    assert torch.equal(
        other.sd.scheduler.alphas_cumprod, plain.sd.scheduler.alphas_cumprod
    )
    z, t = noise(plain), torch.tensor([500])
    assert torch.equal(
        other.sd.process.add_noise(z, z, t),
        plain.sd.process.add_noise(z, z, t),
    )


def test_progress_counts_steps_whatever_their_order(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    seen = []

    editor.sample(
        editor.sd.encode_text(['a cat']),
        num_inference_steps=STEPS,
        scheduler='HeunDiscreteScheduler',
        callback=lambda done, t, z: seen.append(done),
    )

    assert seen == [1, 2, 3, 4]


# ------------------------------------------------------------------ mistakes
def test_an_unknown_name_is_an_error_that_lists_what_works(tiny_sd1):
    editor = make_hiper(tiny_sd1)

    for name in ('DPM++ 2M', 'FlowMatchEulerDiscreteScheduler', 'torch'):
        with pytest.raises(ValueError, match='must be one of') as error:
            editor.infer('a cat', scheduler=name, show_progress=False)
        assert repr(name) in str(error.value)
        assert 'DPMSolverMultistepScheduler' in str(error.value)


def test_an_unknown_value_is_an_error(tiny_sd1):
    with pytest.raises(ValueError, match=r"no 'karras'.*use_karras_sigmas"):
        StableDiffusion(
            str(tiny_sd1),
            scheduler=dict(type='EulerDiscreteScheduler', karras=True),
        )


def test_eta_belongs_to_ddim(tiny_sd1):
    with pytest.raises(ValueError, match='`eta` belongs to DDIM; Euler'):
        make_hiper(tiny_sd1).infer(
            'a cat',
            eta=0.5,
            scheduler='EulerDiscreteScheduler',
            show_progress=False,
        )


def test_an_inversion_goes_the_same_way_back(tiny_sd1):
    scheduler = dict(type='EulerDiscreteScheduler')
    sd = dict(
        type='StableDiffusion', pretrained=str(tiny_sd1), scheduler=scheduler
    )
    with pytest.raises(ValueError, match='Take it out'):
        make(tiny_sd1, 'DDIMInversion', sd=sd)
    with pytest.raises(ValueError, match='`scheduler` is fixed'):
        make(tiny_sd1, 'DDIMInversion').infer(
            'a cat', scheduler='EulerDiscreteScheduler'
        )
