"""Editors as plain pipelines: the same pictures, and nothing else changed."""

import copy
import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from inversion import make as make_inversion
from safetensors.torch import save_file
from tiny import make_hiper, make_word, randomise
from tolerances import EXACT

import mmhiper
from mmhiper.registry import MODELS

STEPS = dict(num_inference_steps=4, guidance_scale=7.5)


def ours(editor, prompt, count=1, **options):
    """Pictures of an editor, (B, 3, H, W) in [0, 1]."""
    return (
        editor.infer(
            prompt,
            num_images_per_prompt=count,
            seed=3,
            show_progress=False,
            return_type='tensor',
            **STEPS,
            **options,
        )['samples']
        / 2
        + 0.5
    )


def theirs(pipeline, count=1, **arguments):
    """Pictures of a pipeline from the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        num_images_per_prompt=count,
        generator=[torch.Generator().manual_seed(3 + i) for i in range(count)],
        output_type='pt',
        **STEPS,
        **arguments,
    ).images


def close(one, two):
    torch.testing.assert_close(one, two, **EXACT)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('negative', [None, 'blurry'])
def test_hiper_with_embeds(tiny_folder, negative):
    editor = make_hiper(tiny_folder)
    randomise(editor)
    out = mmhiper.to_diffusers(editor)
    kind = (
        StableDiffusionXLPipeline
        if len(editor.sd.tokenizers) > 1
        else StableDiffusionPipeline
    )

    assert type(out.pipeline) is kind
    text = out.embeds('a cat', negative, strength=0.5)
    close(
        theirs(out.pipeline, 2, **text),
        ours(editor, 'a cat', 2, negative_prompt=negative, strength=0.5),
    )
    plain = theirs(out.pipeline, prompt='a cat')
    assert not torch.allclose(plain, ours(editor, 'a cat'), atol=1e-3)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('count', [1, 3])
def test_a_word_is_loaded(tiny_folder, tmp_path, count):
    editor = make_word(tiny_folder, num_vectors_per_token=count)
    randomise(editor)
    other = make_word(tiny_folder, placeholder_token='<sketchy>')
    randomise(other, seed=1)
    state = other.learned_state()
    save_file(state, tmp_path / '<sketchy>.safetensors')
    editor.load_embeddings([tmp_path / '<sketchy>.safetensors'])
    pipeline = mmhiper.to_diffusers(editor)

    for prompt in ('my <cat-toy>!', 'a <cat-toy> like <sketchy>, <cat-toy>'):
        text, negative, *pooled = pipeline.encode_prompt(
            prompt,
            device='cpu',
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt='<sketchy>',
        )
        with torch.no_grad():
            both = editor.condition_pair(prompt, '<sketchy>')
        for mine, other in zip(both, (text, negative), strict=True):
            close(mine.tokens, other)
        for mine, other in zip(both, pooled, strict=False):
            close(mine.pooled, other)
        close(theirs(pipeline, prompt=prompt), ours(editor, prompt))


@pytest.mark.usefixtures('float64')
def test_the_end_of_a_text_is_found_whatever_the_config_says(
    tiny_sdxl, tmp_path
):
    """Published configs have the id 2, which stands for the highest."""
    folder = tmp_path / 'published'
    shutil.copytree(tiny_sdxl, folder)
    path = folder / 'text_encoder_2/config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps(dict(config, eos_token_id=2)))
    editor = make_word(folder)
    randomise(editor)

    pipeline = mmhiper.to_diffusers(editor)

    drawn = ours(editor, 'a <cat-toy>')
    close(theirs(pipeline, prompt='a <cat-toy>'), drawn)
    pipeline.save_pretrained(tmp_path / 'saved')
    again = StableDiffusionXLPipeline.from_pretrained(
        tmp_path / 'saved', torch_dtype=torch.float64
    )
    close(theirs(again, prompt='a <cat-toy>'), drawn)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('kind', ['HiPer', 'TextualInversion'])
def test_the_bundled_model(kind):
    if kind == 'HiPer':
        editor = make_hiper('mini-sd')
        randomise(editor)
        out = mmhiper.to_diffusers(editor)
        pipeline, arguments = out.pipeline, out.embeds('a lying dog')
        prompt = 'a lying dog'
    else:
        editor = make_word('mini-sd', initialize_token='toy')
        randomise(editor)
        pipeline = mmhiper.to_diffusers(editor)
        prompt = 'a <cat-toy> on the beach'
        arguments = dict(prompt=prompt)

    close(theirs(pipeline, **arguments), ours(editor, prompt))


@pytest.mark.usefixtures('float64')
def test_the_scheduler_of_the_config_goes_along(tiny_sd1):
    scheduler = dict(type='EulerDiscreteScheduler', use_karras_sigmas=True)
    sd = dict(
        type='StableDiffusion', pretrained=str(tiny_sd1), scheduler=scheduler
    )
    editor = make_word(tiny_sd1, sd=sd)

    pipeline = mmhiper.to_diffusers(editor)

    assert type(pipeline.scheduler).__name__ == 'EulerDiscreteScheduler'
    close(theirs(pipeline, prompt='a <cat-toy>'), ours(editor, 'a <cat-toy>'))


@pytest.mark.usefixtures('untouched_global_generators')
def test_the_editor_stays_as_it_was(tiny_folder):
    editor = make_word(tiny_folder)
    before = copy.deepcopy(editor.sd.state_dict())
    sizes = [len(each) for each in editor.sd.tokenizers]

    mmhiper.to_diffusers(editor)

    after = editor.sd.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [len(each) for each in editor.sd.tokenizers] == sizes


@pytest.mark.usefixtures('has_bf16')
def test_embeds_have_the_precision_of_the_pipeline(tiny_sd1):
    sd = dict(type='StableDiffusion', pretrained=str(tiny_sd1), dtype='bf16')
    out = mmhiper.to_diffusers(make_hiper(tiny_sd1, sd=sd))

    text = out.embeds(['a cat', 'a fox'])
    assert {each.dtype for each in text.values()} == {torch.bfloat16}
    assert text['prompt_embeds'].shape == (2, 77, 32)
    assert not any(each.requires_grad for each in text.values())


def test_sdxl_in_half_precision_decodes_in_full(tiny_sdxl):
    sd = dict(type='StableDiffusion', pretrained=str(tiny_sdxl), dtype='fp16')
    editor = make_hiper(tiny_sdxl, sd=sd)
    out = mmhiper.to_diffusers(editor)

    picture = theirs(out.pipeline, **out.embeds('a cat')).float()
    drawn = ours(editor, 'a cat')
    # Latents are of half precision there and of full precision here, so they
    # differ by about what the half precision of the U-Net alone costs us.
    full = ours(make_hiper(tiny_sdxl), 'a cat')
    cost = (drawn - full).abs().max().item()
    assert 0 < cost < 0.1
    torch.testing.assert_close(picture, drawn, rtol=0, atol=10 * cost)
    assert editor.sd.vae.dtype == torch.float32


def test_editors_that_invert_say_why_they_cannot(tiny_sd1):
    editor = make_inversion(tiny_sd1, 'DDIMInversion')

    with pytest.raises(ValueError, match='attention in every step'):
        mmhiper.to_diffusers(editor)
    assert 'StyleDiffusion' in MODELS


def test_unknown_names_of_the_package_are_errors():
    with pytest.raises(AttributeError, match='no_such_name'):
        _ = mmhiper.no_such_name
