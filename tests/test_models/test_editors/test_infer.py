"""Drawing pictures: contract C3, and parity with the diffusers pipeline."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import at_step, batch_of, make_hiper, picture, pipeline_of
from tolerances import EXACT, float64

STEPS = 3


def draw(editor, prompt='a cat', **options):
    options = {'num_inference_steps': STEPS, 'return_type': 'tensor'} | options
    return editor.infer(prompt, show_progress=False, **options)['samples']


@pytest.fixture(scope='module')
def editor(tiny_sd1):
    return make_hiper(tiny_sd1)


@pytest.fixture(scope='module')
def exact_editor(tiny_sd1):
    """The same in double precision."""
    with float64():
        return make_hiper(tiny_sd1)


@pytest.fixture(scope='module', params=['sd1', 'sd2', 'sdxl'])
def exact_pair(request):
    """An editor and the pipeline of its folder, in double precision."""
    folder = request.getfixturevalue(f'tiny_{request.param}')
    with float64():
        return make_hiper(folder), pipeline_of(folder)


@pytest.fixture
def pair(exact_pair, float64):
    """Both, and double precision for what a test computes."""
    return exact_pair


def embeds(text, negative=None) -> dict:
    """Conditionings as arguments of a pipeline."""
    named = dict(prompt_embeds=text.tokens)
    if text.pooled is not None:
        named['pooled_prompt_embeds'] = text.pooled
    if negative is not None:
        rest = embeds(negative.repeat_interleave(len(text)))
        named |= {f'negative_{name}': tensor for name, tensor in rest.items()}
    return named


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(guidance_scale=1.0),
        dict(guidance_scale=3.0, negative_prompt='blurry'),
        dict(guidance_rescale=0.7),
        dict(height=32, width=96),
        dict(num_images_per_prompt=2),
        dict(eta=0.7),
        dict(num_inference_steps=7),
    ],
)
def test_it_draws_what_the_pipeline_draws(pair, options):
    editor, pipeline = pair
    defaults = dict(num_inference_steps=STEPS, guidance_scale=7.5)
    options = defaults | options
    with torch.no_grad():
        condition = editor.condition(['a cat', 'a dog on the beach'])
        if 'negative_prompt' in options:
            negative = editor.sd.encode_text([options['negative_prompt']])
        else:
            negative = editor.sd.encode_nothing(1)
    count = 2 * options.get('num_images_per_prompt', 1)
    shape = editor.sd.latent_shape(
        options.get('height', 64), options.get('width', 64)
    )
    latents = torch.randn(
        (count, *shape), generator=torch.Generator().manual_seed(5)
    )

    ours = draw(
        editor,
        ['a cat', 'a dog on the beach'],
        latents=latents,
        generator=torch.Generator().manual_seed(6),
        **options,
    )
    options.pop('negative_prompt', None)
    theirs = pipeline(
        **embeds(condition, negative),
        latents=latents,
        generator=torch.Generator().manual_seed(6),
        output_type='pt',
        **options,
    ).images

    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours / 2 + 0.5, theirs, **EXACT)


@pytest.mark.parametrize('negative', [None, '', 'blurry'])
def test_plain_texts_are_drawn_as_by_the_pipeline(pair, negative):
    editor, pipeline = pair
    shape = editor.sd.latent_shape(64, 96)
    latents = torch.randn(
        (1, *shape), generator=torch.Generator().manual_seed(5)
    )
    options = dict(height=64, width=96, num_inference_steps=STEPS)
    away = None if negative is None else editor.sd.encode_text([negative])

    ours = editor.sample(
        editor.sd.encode_text(['a cat!']), away, latents=latents, **options
    )
    theirs = pipeline(
        'a cat!',
        negative_prompt=negative,
        latents=latents,
        output_type='pt',
        **options,
    ).images

    torch.testing.assert_close(ours / 2 + 0.5, theirs, **EXACT)


@pytest.mark.usefixtures('float64')
def test_sdxl_moves_away_from_zeros_where_its_index_says_so(
    tiny_sdxl, tmp_path
):
    editor = make_hiper(tiny_sdxl)
    assert not editor.sd.encode_nothing(2).tokens.any()
    assert not editor.sd.encode_nothing(2).pooled.any()

    folder = tmp_path / 'other'
    shutil.copytree(tiny_sdxl, folder)
    path = folder / 'model_index.json'
    index = json.loads(path.read_text())
    index['force_zeros_for_empty_prompt'] = False
    path.write_text(json.dumps(index))
    other = make_hiper(folder)
    empty = other.sd.encode_nothing(2)
    same = other.sd.encode_text(['', ''])
    torch.testing.assert_close(empty.tokens, same.tokens, **EXACT)


def test_seeded_noise_is_that_of_the_pipeline_with_generators(pair):
    editor, pipeline = pair
    with torch.no_grad():
        condition = editor.condition(['a cat'])

    ours = draw(editor, num_images_per_prompt=2, seed=7)
    theirs = pipeline(
        **embeds(condition, editor.sd.encode_nothing(1)),
        num_images_per_prompt=2,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(7 + i) for i in range(2)],
        output_type='pt',
    ).images

    torch.testing.assert_close(ours / 2 + 0.5, theirs, **EXACT)


def test_the_text_matters(editor):
    assert (draw(editor, 'a cat') - draw(editor, 'xyz')).abs().max() > 1e-3


@pytest.mark.usefixtures('float64')
def test_the_pictures_of_a_run_do_not_depend_on_its_size(exact_editor):
    editor = exact_editor
    together = draw(editor, num_images_per_prompt=3, seed=4, eta=0.5)

    for i in range(3):
        alone = draw(editor, seed=4 + i, eta=0.5)
        torch.testing.assert_close(alone[0], together[i], **EXACT)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.usefixtures('float64')
def test_several_prompts_are_drawn_prompt_by_prompt(exact_editor):
    editor = exact_editor
    both = draw(editor, ['a cat', 'a fox'], num_images_per_prompt=2, seed=4)

    fox = draw(editor, 'a fox', num_images_per_prompt=2, seed=6)
    torch.testing.assert_close(both[2:], fox, **EXACT)


def test_the_same_seed_is_the_same_picture_whatever_ran_before(editor):
    first = draw(editor, seed=3)
    torch.manual_seed(123)
    other = draw(editor, seed=9)
    noisy = draw(editor, seed=3, eta=1.0)

    assert torch.equal(draw(editor, seed=3), first)
    assert torch.equal(draw(editor, seed=3, eta=1.0), noisy)
    assert not torch.allclose(first, other, atol=1e-2)
    assert not torch.allclose(first, noisy, atol=1e-2)


@pytest.mark.usefixtures('untouched_global_generators')
def test_randomness_is_local(editor):
    draw(editor, seed=3, eta=1.0)


def test_defaults_are_those_of_the_contract(editor):
    images = editor.infer('a cat', show_progress=False)['samples']

    same = draw(
        editor,
        num_inference_steps=50,
        guidance_scale=7.5,
        guidance_rescale=0,
        guidance_interval=None,
        negative_prompt='',
        strength=0.8,
        seed=1,
        return_type='image',
    )
    assert np.array_equal(np.asarray(images[0]), np.asarray(same[0]))


def test_one_call_of_the_unet_per_step(editor):
    sizes = []
    handle = editor.sd.unet.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    try:
        draw(editor, num_images_per_prompt=2, batch_size=2)
    finally:
        handle.remove()

    assert sizes == [4] * STEPS


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(prompt=''), '`prompt`'),
        (dict(prompt='  '), '`prompt`'),
        (dict(prompt=[]), '`prompt`'),
        (dict(prompt=['a cat', '']), '`prompt`'),
        (dict(prompt='a \udcff cat'), '`prompt`.*half a character'),
        (dict(negative_prompt='a \udcff cat'), 'half a character'),
        (dict(height=60), 'multiples of 8.* 60'),
        (dict(width=0), 'multiples of 8'),
        (dict(num_inference_steps=0), '`num_inference_steps`'),
        (dict(num_inference_steps=2000), 'num_inference_steps'),
        (dict(num_images_per_prompt=0), '`num_images_per_prompt`'),
        (dict(negative_prompt=['a', 'b']), 'negative_prompt.* 1 .*2'),
        (dict(latents=torch.zeros(1, 4, 4, 4)), r'\(1, 4, 8, 8\).*4, 4, 4'),
        (dict(generator=[torch.Generator()] * 2), 'generators'),
        (dict(return_type='jpeg'), "'tensor'.*'jpeg'"),
        (dict(eta=2), '`eta`'),
        (dict(image=1), '`image`'),
    ],
)
def test_mistakes_are_named(editor, options, message):
    with pytest.raises(ValueError, match=message):
        draw(editor, **({'prompt': 'a cat'} | options))


def test_a_training_step_leaves_pictures_as_they_are(editor):
    """It lays the U-Net's weights out otherwise, for speed."""
    before = draw(editor, seed=3)
    at_step(0)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]))
    editor(**data, mode='loss')['loss'].backward()
    editor.zero_grad()

    assert torch.equal(draw(editor, seed=3), before)
