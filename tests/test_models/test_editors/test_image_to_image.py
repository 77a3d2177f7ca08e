"""Pictures from pictures: parity with the pipelines of diffusers."""

import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
from PIL import Image
from tiny import (
    make_hiper,
    make_word,
    picture,
    pipeline_of,
    pipeline_of_flow,
    randomise,
)
from tolerances import EXACT, float64

from mmhiper.models import DDIMInversion, ProSpect

PROMPTS = ['a cat', 'a dog on the beach']
PIPELINES = {
    False: dict(
        sd1=StableDiffusionImg2ImgPipeline,
        sd2=StableDiffusionImg2ImgPipeline,
        sdxl=StableDiffusionXLImg2ImgPipeline,
        sd3=StableDiffusion3Img2ImgPipeline,
    ),
    True: dict(
        sd1=StableDiffusionInpaintPipeline,
        sd2=StableDiffusionInpaintPipeline,
        sdxl=StableDiffusionXLInpaintPipeline,
        sd3=StableDiffusion3InpaintPipeline,
    ),
}
SCHEDULERS = (
    'DDIMScheduler',
    'DPMSolverMultistepScheduler',
    'EulerDiscreteScheduler',
    'EulerAncestralDiscreteScheduler',
    'HeunDiscreteScheduler',
    'PNDMScheduler',
)


def source(seed, size=64):
    """A picture, (3, size, size) in [-1, 1], the same in both precisions."""
    return (picture(seed, size).to(torch.float32) / 127.5 - 1).to(
        torch.get_default_dtype()
    )


def half(size=64):
    """A mask, white on the left, (size, size)."""
    mask = torch.zeros(size, size)
    mask[:, : size // 2] = 1
    return mask


def generators(count=2):
    return [torch.Generator().manual_seed(70 + i) for i in range(count)]


def draw(editor, prompt=PROMPTS, **options):
    options = dict(num_inference_steps=5, return_type='tensor') | options
    return editor.infer(prompt, show_progress=False, **options)['samples']


def make_pair(request, name):
    """An editor that has learned, and the plain pipeline of its folder."""
    folder = request.getfixturevalue(f'tiny_{name}')
    with float64():
        editor = make_hiper(folder)
        randomise(editor)
        load = pipeline_of_flow if name == 'sd3' else pipeline_of
        plain = load(folder)
    # or the pipelines of XL make it single precision
    plain.vae.register_to_config(force_upcast=False)
    return name, editor, plain


@pytest.fixture(scope='module', params=['sd1', 'sd2', 'sdxl'])
def exact_pair(request):
    return make_pair(request, request.param)


@pytest.fixture(scope='module')
def exact_flow(request):
    return make_pair(request, 'sd3')


@pytest.fixture(scope='module')
def editor(tiny_sd1):
    return make_hiper(tiny_sd1)


def drawn_by_diffusers(name, editor, plain, options, **given):
    """What the pipeline makes of the same, in [-1, 1]."""
    pipeline = PIPELINES['mask_image' in given][name].from_pipe(
        plain, torch_dtype=torch.get_default_dtype()
    )
    pipeline.set_progress_bar_config(disable=True)
    # as pipelines are set up: `from_pipe` would change it
    pipeline.scheduler = editor.sd.process.make_sampler(
        options.get('scheduler')
    )
    text, negative = editor.condition_pair(PROMPTS)
    embeds = dict(
        prompt_embeds=text.tokens, negative_prompt_embeds=negative.tokens
    )
    if text.pooled is not None:
        embeds |= dict(
            pooled_prompt_embeds=text.pooled,
            negative_pooled_prompt_embeds=negative.pooled,
        )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        latents = pipeline(
            **embeds,
            **given,
            generator=generators(),
            output_type='latent',
            guidance_scale=options.get(
                'guidance_scale', editor.default_guidance
            ),
            num_inference_steps=options.get('num_inference_steps', 5),
            strength=options['denoise'],
        ).images
    # that for inpainting with a flow decodes without the shift of latents
    return editor.sd.decode(latents).clamp(-1, 1)


@pytest.mark.parametrize(
    'options',
    [
        *(dict(denoise=0.6, scheduler=name) for name in SCHEDULERS),
        dict(denoise=1.0),
        dict(denoise=1.0, scheduler='EulerDiscreteScheduler'),
        dict(denoise=0.25, num_inference_steps=7, guidance_scale=1.0),
    ],
)
@pytest.mark.usefixtures('float64')
def test_it_draws_what_the_pipeline_draws(exact_pair, options):
    name, editor, plain = exact_pair
    images = torch.stack([source(1), source(2)])

    drawn = draw(editor, image=images, generator=generators(), **options)

    expected = drawn_by_diffusers(name, editor, plain, options, image=images)
    torch.testing.assert_close(drawn, expected, **EXACT)
    assert (drawn - images).abs().max() > 0.01


@pytest.mark.parametrize(
    'options',
    [
        *(
            dict(denoise=0.6, scheduler=name)
            for name in SCHEDULERS
            if 'Ancestral' not in name  # its noise: the order of drawing
        ),
        dict(denoise=1.0),
        dict(denoise=1.0, scheduler='EulerDiscreteScheduler'),
        dict(denoise=0.8, guidance_scale=1.0),
    ],
)
@pytest.mark.usefixtures('float64')
def test_it_paints_what_the_pipeline_paints(exact_pair, options):
    name, editor, plain = exact_pair
    images = torch.stack([source(1), source(2)])
    # of whole latents, and of parts of them
    masks = torch.stack([half(), torch.ones(64, 64).triu(5)])

    drawn = draw(
        editor, image=images, mask=masks, generator=generators(), **options
    )

    expected = drawn_by_diffusers(
        name,
        editor,
        plain,
        options,
        image=images,
        mask_image=masks[:, None],
        height=64,
        width=64,
    )
    torch.testing.assert_close(drawn, expected, **EXACT)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.usefixtures('float64')
def test_a_flow_likewise(exact_flow, masked):
    name, editor, plain = exact_flow
    size = editor.sd.image_size
    images = torch.stack([source(1, size), source(2, size)])
    options = dict(denoise=0.6)
    given = dict(image=images)
    ours = {}
    if masked:
        masks = torch.stack([half(size), half(size).T])
        ours = dict(mask=masks)
        given |= dict(mask_image=masks[:, None], height=size, width=size)

    drawn = draw(
        editor, image=images, generator=generators(), **options, **ours
    )

    expected = drawn_by_diffusers(name, editor, plain, options, **given)
    torch.testing.assert_close(drawn, expected, **EXACT)


def test_latent_diffusion_draws_from_pictures_too(tiny_ldm):
    editor = make_word(tiny_ldm)
    size = editor.sd.image_size
    image = source(1, size)

    little = draw(editor, 'a <cat-toy>', image=image, denoise=0.2)
    much = draw(editor, 'a <cat-toy>', image=image, denoise=1.0)

    encoded = editor.sd.decode(editor.sd.encode_image(image[None]))
    distances = [(each - encoded).abs().mean() for each in (little, much)]
    assert distances[0] < distances[1]


def test_a_little_noise_stays_near_the_picture(editor):
    image = source(3)
    encoded = editor.sd.decode(editor.sd.encode_image(image[None]))

    near = draw(editor, 'a cat', image=image, denoise=0.2)
    far = draw(editor, 'a cat', image=image)

    assert torch.equal(far, draw(editor, 'a cat', image=image, denoise=0.8))
    distances = [(each - encoded).abs().mean() for each in (near, far)]
    assert distances[0] < distances[1]


def test_a_picture_of_a_seed_is_the_same_in_any_batch(editor):
    images = [source(1), source(2)]
    options = dict(denoise=0.6, eta=0.5, mask=half())
    before = torch.get_rng_state()

    both = draw(editor, image=images, num_images_per_prompt=2, **options)
    second = draw(
        editor, PROMPTS[0], image=images[0], seed=2, **options
    )  # of the first prompt
    parts = draw(
        editor, image=images, num_images_per_prompt=2, batch_size=3, **options
    )

    assert len(both) == 4
    # other numbers of rows are other kernels: rounding, and no more
    torch.testing.assert_close(both[1:2], second, rtol=0, atol=1e-3)
    torch.testing.assert_close(both, parts, rtol=0, atol=1e-3)
    assert (both[0] - both[1]).abs().max() > 0.01
    assert torch.equal(torch.get_rng_state(), before)


def test_what_editors_add_goes_on(tiny_sd1, editor):
    """Strength in stages, guidance in an interval, vectors in stages."""
    image = source(1)
    learned = make_hiper(tiny_sd1)
    randomise(learned)

    def drawn(**options):
        return draw(learned, 'a cat', image=image, denoise=0.6, **options)

    whole = drawn(strength=0.5)
    # of two stages of the noise three of five steps see the second alone
    late = drawn(strength=[0.0, 0.5])
    assert (whole - drawn(strength=1.0)).abs().max() > 1e-4
    assert not torch.equal(late, drawn(strength=[0.5, 0.0]))
    assert not torch.equal(whole, drawn(strength=0.5, guidance_rescale=0.7))
    # guidance only where it is noisier than it ever is here
    none = drawn(strength=0.5, guidance_scale=1.0)
    outside = drawn(strength=0.5, guidance_interval=(14.0, 15.0))
    torch.testing.assert_close(none, outside, rtol=0, atol=1e-3)

    varying = ProSpect(
        dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
        placeholder_token='<cat-toy>',
        num_stages=2,
    )
    randomise(varying)
    options = dict(image=image, denoise=0.4)  # two steps, of the last stage
    all_of_it = draw(varying, 'a <cat-toy>', **options)
    last = draw(varying, 'a <cat-toy>', stages=[1, 2], **options)
    torch.testing.assert_close(all_of_it, last, rtol=0, atol=1e-3)


def test_which_source_image_and_a_picture_to_begin_with(tiny_sd1):
    editor = make_hiper(
        tiny_sd1, source_text=['a dog', 'a cat'], target_text=None
    )
    randomise(editor)
    image = source(1)

    first, second = (
        draw(editor, 'a cat', image=image, index=number) for number in (0, 1)
    )

    assert (first - second).abs().max() > 1e-4
    assert torch.equal(first, draw(editor, 'a cat', image=image))
    with pytest.raises(ValueError, match=r'`index` must be in \[0, 1\]'):
        draw(editor, 'a cat', image=image, index=2)
    # a number alone is what it was, of whatever type
    assert torch.equal(
        draw(editor, 'a cat', image=np.int64(1)),
        draw(editor, 'a cat', image=1),
    )
    assert torch.equal(
        draw(editor, 'a cat', image=1), draw(editor, 'a cat', index=1)
    )
    with pytest.raises(ValueError, match='`image` must be a picture to begin'):
        draw(make_word(tiny_sd1), 'a <cat-toy>', image=1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(denoise=0.5), '`denoise` is of a picture.*give `image`'),
        (dict(mask=half()), '`mask` is of a picture.*give `image`'),
        (dict(image=source(1), denoise=0.0), r'\(0, 1\], but got 0.0'),
        (dict(image=source(1), denoise=1.5), r'\(0, 1\], but got 1.5'),
        (dict(image=source(1), denoise='0.5'), 'without quotes: 0.5'),
        (dict(image=source(1), denoise=0.1), '0.1 of 5 steps is less than'),
        (dict(image=[source(1)] * 2), '`image` must be one for all.*got 2'),
        (dict(image='no.png'), "'no.png' does not exist"),
        (dict(image=source(1), generator=generators(3)), 'each of 1 pic'),
        (dict(image=source(1), height=60), 'multiples of 8'),
    ],
)
def test_mistakes_are_named(editor, options, message):
    with pytest.raises(ValueError, match=message):
        draw(editor, 'a cat', **options)


def test_an_inverted_picture_takes_no_other(tiny_sd1):
    sd = dict(pretrained=str(tiny_sd1), type='StableDiffusion')
    editor = DDIMInversion(sd, source_text='a dog', num_steps=2)
    for options in (
        dict(image=source(1)),
        dict(mask=Image.new('L', (64, 64), 255)),
        dict(denoise=0.5),
    ):
        (name,) = options
        with pytest.raises(ValueError, match=f'DDIMInversion.*no `{name}`'):
            editor.infer('a cat', **options)
