"""Prompts with weights, and long ones, against compel run by hand."""

import sys
import warnings

import numpy as np
import pytest
import torch
from editors import EDITORS, model_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inversion import with_image_encoder
from PIL import Image
from tiny import FAMILIES, make_hiper, make_word, pipeline_of, randomise
from tolerances import EXACT, GREY_LEVEL

import mmhiper
from mmhiper.cli import main
from mmhiper.inferencer import EditInferencer
from mmhiper.io import read_picture_record, write_export
from mmhiper.models.weighted_text import WeightedText
from mmhiper.registry import MODELS

compel = pytest.importorskip(
    'compel', reason='reads the weights; `pip install compel`'
)

STEPS = dict(num_inference_steps=2, guidance_scale=7.5)
QUICK = dict(STEPS, show_progress=False, return_type='tensor', seed=3)
ON = dict(prompt_weighting=True)
# Of 120 tokens: those of the tiny tokenizers are letters. A chunk ends with a
# sentence; and no word of one letter is cut by what reads the pooled text.
LONG = 'q r, s t. ' * 20
TOY = '<cat-toy>'


def close(one, two):
    torch.testing.assert_close(one, two, **EXACT)


def by_hand(pipeline, texts):
    """What compel makes of texts on a pipeline, as its own page shows."""
    several = hasattr(pipeline, 'tokenizer_2')
    kinds = compel.ReturnedEmbeddingsType
    kind = kinds.LAST_HIDDEN_STATES_NORMALIZED
    if several:
        kind = kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    manager = None
    if f'{TOY}_1' in pipeline.tokenizer.get_vocab():  # of several vectors
        manager = compel.DiffusersTextualInversionManager(pipeline)
    tokens = []
    for end in ['', '_2'] if several else ['']:
        reader = compel.Compel(
            getattr(pipeline, f'tokenizer{end}'),
            getattr(pipeline, f'text_encoder{end}'),
            textual_inversion_manager=manager,
            truncate_long_prompts=False,
            returned_embeddings_type=kind,
            requires_pooled=end == '_2',
        )
        made = reader(texts)
        if end:
            made, pooled = made
        tokens.append(made)
    named = dict(prompt_embeds=torch.cat(tokens, -1))
    if several:
        named['pooled_prompt_embeds'] = pooled
    return named


def both_by_hand(pipeline, prompt, negative):
    """The arguments of a pipeline, by hand, padded to one length."""
    rows = by_hand(pipeline, [prompt, negative])
    return {name: each[:1] for name, each in rows.items()} | {
        f'negative_{name}': each[1:] for name, each in rows.items()
    }


def drawn(pipeline, **arguments):
    """A picture of a pipeline, (1, 3, H, W) in [-1, 1]."""
    images = pipeline(
        generator=torch.Generator().manual_seed(3),
        output_type='pt',
        **STEPS,
        **arguments,
    ).images
    return images * 2 - 1


def with_words(folder, editor):
    """The plain pipeline of a folder, with the words of an editor."""
    pipeline = pipeline_of(folder)
    for end, name in (('', 'clip_l'), ('_2', 'clip_g')):
        if not hasattr(pipeline, f'tokenizer{end}'):
            continue
        state = editor.learned_state()
        pipeline.load_textual_inversion(
            state.get(TOY, state.get(name)).to(torch.get_default_dtype()),
            token=TOY,
            tokenizer=getattr(pipeline, f'tokenizer{end}'),
            text_encoder=getattr(pipeline, f'text_encoder{end}'),
        )
    return pipeline


@pytest.mark.parametrize('make', [make_hiper, make_word])
@pytest.mark.parametrize('negative', [None, 'blurry, grey'])
def test_a_plain_prompt_is_read_as_ever(tiny_folder, make, negative):
    editor = make(tiny_folder)
    randomise(editor)
    fits = 'x' * editor.sd.room(3 if make is make_hiper else 0)
    for prompt in (f'a photo, of {TOY}.', "it's 5-3 well-known", fits):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # there are words it knows not
            plain = editor.condition_pair(prompt, negative)
            found = editor.condition_pair(prompt, negative, **ON)

        for one, other in zip(plain, found, strict=True):
            assert torch.equal(one.tokens, other.tokens)
            if one.pooled is not None:
                assert torch.equal(one.pooled, other.pooled)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize(
    ('count', 'prompt', 'negative'),
    [
        (3, f'a (red {TOY})1.3 in a park--', 'grey++'),
        (1, f'{TOY}++ and (a (dog)0.5 {TOY})1.1', ''),
        (3, f'{TOY}- {LONG} (with {TOY})1.4', 'a (cat)0.6'),
        (1, f'a {TOY}+', LONG),
        (1, f'("a {TOY}+", "a dog").blend(0.7, 0.3)', 'a dog'),
        (3, f'("a {TOY}", "{LONG}").and()', 'a dog'),
    ],
)
def test_words_are_weighed_as_compel_does(
    tiny_folder, count, prompt, negative
):
    editor = make_word(tiny_folder, num_vectors_per_token=count)
    randomise(editor)
    pipeline = with_words(tiny_folder, editor)
    arguments = both_by_hand(pipeline, prompt, negative)

    text, other = editor.condition_pair(prompt, negative, **ON)

    close(text.tokens, arguments['prompt_embeds'])
    close(other.tokens, arguments['negative_prompt_embeds'])
    if text.pooled is not None:
        close(text.pooled, arguments['pooled_prompt_embeds'])
        close(other.pooled, arguments['negative_pooled_prompt_embeds'])
    close(
        editor.infer(prompt, negative_prompt=negative, **ON, **QUICK)[
            'samples'
        ],
        drawn(pipeline, **arguments),
    )


@pytest.mark.usefixtures('float64')
def test_without_a_negative_prompt_it_is_the_pipelines_own(tiny_folder):
    editor = make_word(tiny_folder)
    randomise(editor)
    pipeline = with_words(tiny_folder, editor)
    arguments = both_by_hand(pipeline, f'a {TOY}++ {LONG}', '')
    if 'pooled_prompt_embeds' in arguments:  # zeros, in Stable Diffusion XL
        arguments = {
            name: each
            for name, each in arguments.items()
            if 'negative' not in name
        }

    found = editor.infer(f'a {TOY}++ {LONG}', **ON, **QUICK)['samples']

    close(found, drawn(pipeline, **arguments))


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('word', ['<my.cat,toy>', 'sks--', '*'])
def test_signs_of_a_word_are_no_weights(tiny_one_text, word):
    """Inside of brackets compel would part the word at them."""
    editor = make_word(tiny_one_text, placeholder_token=word)
    randomise(editor)
    plain = make_word(tiny_one_text)
    plain.embedding.load_state_dict(
        {
            name.replace(word, TOY): each
            for name, each in editor.embedding.state_dict().items()
        }
    )

    found = editor.condition_pair(f'a (red {word})1.3 {word}++', **ON)[0]
    expected = plain.condition_pair(f'a (red {TOY})1.3 {TOY}++', **ON)[0]

    assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('family', ['tiny_sd2', 'tiny_sdxl'])
@pytest.mark.parametrize(
    ('prompt', 'chunks', 'more'),
    [
        ('a (sitting)1.3 dog++', 1, 0),
        (LONG, 2, 0),
        ('x' * 73, 1, 0),  # the end mark alone is where the tail goes
        ('x' * 74, 1, 1),
        (f'("{"x" * 74}", "a").blend(1, 1)', 1, 1),
    ],
)
def test_the_tail_ends_the_last_chunk(request, family, prompt, chunks, more):
    folder = request.getfixturevalue(family)
    editor = make_hiper(folder)
    randomise(editor)
    pipeline = pipeline_of(folder)
    text = by_hand(pipeline, [prompt])['prompt_embeds']
    assert text.shape[1] == 77 * chunks
    empty = by_hand(pipeline, [''])['prompt_embeds']
    text = torch.cat([text, *[empty] * more], 1)

    once, _ = editor.condition_pair(prompt, '', strength=0.8, **ON)
    by_stage, _ = editor.condition_pair(prompt, '', strength=[0.5, 1.0], **ON)

    texts = [once.tokens[0], *by_stage.tokens[0, :, 0]]
    for factor, own in zip((0.8, 0.5, 1.0), texts, strict=True):
        close(own[:-3], text[0, :-3])
        close(own[-3:], factor * editor.embedding.tail[0])


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('negative', ['', f'{LONG} {LONG}'])
def test_hiper_leaves_with_weights(tiny_folder, negative):
    """Also where the negative prompt is the longer one."""
    editor = make_hiper(tiny_folder)
    randomise(editor)
    prompt = f'a (red)1.4 dog, {LONG}'
    out = mmhiper.to_diffusers(editor)

    theirs = drawn(out.pipeline, **out.embeds(prompt, negative, **ON))

    options = dict(negative_prompt=negative, **ON, **QUICK)
    close(editor.infer(prompt, **options)['samples'], theirs)
    plain = editor.infer(prompt.replace('1.4', '1.0'), **options)['samples']
    assert not torch.allclose(plain, theirs, atol=1e-3)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('batch_size', [None, 2])
def test_a_picture_is_the_same_beside_longer_prompts(tiny_sd1, batch_size):
    editor = make_hiper(tiny_sd1)
    randomise(editor)
    prompts = ['a dog++', LONG, 'a cat', 'a (cat)1.2']

    together = editor.infer(
        prompts,
        num_images_per_prompt=2,
        batch_size=batch_size,
        negative_prompt=['', '', LONG, ''],
        **ON,
        **QUICK,
    )['samples']

    for number, prompt in enumerate(prompts):
        options = dict(QUICK, seed=3 + 2 * number)
        alone = editor.infer(
            prompt,
            num_images_per_prompt=2,
            negative_prompt=LONG if number == 2 else '',
            **ON,
            **options,
        )['samples']
        close(together[2 * number : 2 * number + 2], alone)
    with pytest.raises(ValueError, match='prompts are of several lengths'):
        editor.infer(prompts, generator=torch.Generator(), **ON, **QUICK)


@pytest.mark.usefixtures('float64')
def test_a_long_prompt_is_read_whole_after_one_of_stages(tiny_sd1):
    """Which has each layer read its own part of long texts."""
    editor = make_hiper(tiny_sd1)
    randomise(editor)
    before = editor.infer(LONG, **ON, **QUICK)['samples']

    stages = editor.infer(LONG, strength=[0.8, 0.8], **ON, **QUICK)['samples']

    close(stages, before)
    assert editor.sd._layers_read_own
    close(editor.infer(LONG, **ON, **QUICK)['samples'], before)


def test_vectors_that_are_not_in_use_are_not_read(tiny_sd1):
    editor = make_word(
        tiny_sd1, num_vectors_per_token=3, progressive_interval=1
    )
    randomise(editor)
    editor.embedding.activate(1)

    plain = editor.condition_pair(f'a {TOY}')[0]

    assert torch.equal(
        editor.condition_pair(f'a {TOY}', **ON)[0].tokens, plain.tokens
    )


def test_a_word_of_several_vectors_is_not_cut(tiny_sd1):
    editor = make_word(tiny_sd1, num_vectors_per_token=4)
    randomise(editor)
    prompt = f'{"x " * 73}{TOY}'

    text = editor.condition_pair(prompt, **ON)[0]

    assert text.tokens.shape[1] == 2 * 77
    alone = editor.condition_pair(TOY, **ON)[0]
    assert torch.equal(text.tokens[:, 77:], alone.tokens)


def test_the_offloaded_are_read_too(tiny_sdxl):
    sd = dict(type='StableDiffusion', pretrained=str(tiny_sdxl))
    found = [
        make_word(tiny_sdxl, sd=dict(sd, offload=offload)).condition_pair(
            f'a ({TOY})1.3', 'dog--', **ON
        )
        for offload in (False, True)
    ]

    for one, other in zip(*found, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.pooled, other.pooled)


def test_weights_are_rounded_as_the_encoder_is(tiny_sd1, has_bf16):
    """To its precision, as compel does; then all is fp32."""
    sd = dict(type='StableDiffusion', pretrained=str(tiny_sd1), dtype='bf16')
    editor = make_hiper(tiny_sd1, sd=sd)

    text = editor.condition_pair('a (dog)1.3', strength=1, **ON)[0]

    content = text.tokens[:, :-3]
    assert content.dtype == torch.float32
    assert torch.equal(content, content.bfloat16().float())


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ('prompt', 'said'),
    [
        ('a (dog)' + '9' * 400 + '.0', 'must be a finite number, but got inf'),
        ('a dog' + '+' * 9000, 'is none that compel reads'),
        ('("a", "b").blend(nan, 1)', 'must be a finite number, but got nan'),
        ('("a", "b").blend(1)', 'is none that compel reads'),
        ('("a", "b").blend(1, -1)', 'make numbers that are not finite'),
        ('a (dog)' + '9' * 39 + '.0', 'make numbers that are not finite'),
        ('a dog.swap(cat)', 'has a `.swap\\(\\)`'),
        ('withLora(dog, 1) a cat', 'has a `.swap\\(\\)` or `withLora\\(\\)`'),
        ('()', 'has no word in it'),
        ('(' * 500 + 'a dog' + ')' * 500, 'is none that compel reads'),
        ('', '`prompt` must be a text'),
        ([], '`prompt` must hold at least one text'),
    ],
)
def test_what_cannot_be_read_is_told(tiny_sd1, prompt, said):
    editor = make_hiper(tiny_sd1)
    with pytest.raises(ValueError, match=said) as error:
        editor.infer(prompt, **ON, **QUICK)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('text', 'plain'),
    [
        ('a (dog', 'a (dog'),
        ('a dog)1.3', 'a dog)1.3'),
        (r'a \(dog\)', 'a (dog)'),
        (r'\(\(\(\(\( a dog', '((((( a dog'),
        ('a (dog)nan', 'a dog nan'),
        ('a dog ++', 'a dog ++'),
        ('((((((a dog))))))1.0', 'a dog'),  # minutes, were each read anew
    ],
)
def test_what_is_no_syntax_stays_text(tiny_sd1, text, plain):
    editor = make_hiper(tiny_sd1)

    found = editor.condition_pair(text, **ON)[0]

    assert torch.equal(found.tokens, editor.condition([plain]).tokens)


@pytest.fixture(scope='module')
def readers(tiny_sd1, tiny_sdxl):
    editors = [make_hiper(tiny_sd1), make_word(tiny_sdxl)]
    return [WeightedText(editor.sd) for editor in editors]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(
        st.sampled_from(
            ['(', ')', '"', '+', '-', '.', ',', ' ', 'a', '1', '0.5', '!']
            + ['.and(', '.blend(', '.attend(', '.swap(', '\\', '=', 'é', 'ab']
            + [')1.3', LONG]
        ),
        min_size=1,
        max_size=14,
    )
)
def test_any_text_is_read_or_refused_in_one_line(readers, parts):
    for reader in readers:
        try:
            (text,) = reader.read([''.join(parts)], free=3)
        except ValueError as error:
            assert '\n' not in str(error)
        else:
            assert text.tokens.isfinite().all()
            assert text.tokens.shape[1] % 77 == 0


@pytest.mark.parametrize('make', [make_hiper, make_word])
@pytest.mark.parametrize('family', ['tiny_ldm', 'tiny_sd3'])
def test_other_families_are_refused(request, make, family):
    editor = make(request.getfixturevalue(family))
    with pytest.raises(ValueError, match='needs a Stable Diffusion'):
        editor.infer(f'a {TOY}', **ON, **QUICK)


@pytest.mark.parametrize(
    'kind',
    sorted(set(EDITORS) - {'HiPer', 'TextualInversion', 'TextInterpolation'}),
)
def test_other_editors_are_refused(tiny_sd1, tmp_path, kind):
    folder = tiny_sd1
    if EDITORS[kind].clip:
        folder = with_image_encoder(
            tiny_sd1, tmp_path / 'sd1', FAMILIES['sd1'].width
        )
    editor = MODELS.build(model_of(kind, folder))
    with pytest.raises(ValueError, match='prompt_weighting') as error:
        editor.infer('a <toy>', **ON)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('make', [make_hiper, make_word])
def test_without_compel_nothing_else_fails(tiny_sd1, monkeypatch, make):
    editor = make(tiny_sd1)
    for name in [each for each in sys.modules if each.startswith('compel')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'compel', None)  # as if not installed

    editor.infer(f'a {TOY}', **QUICK)
    with pytest.raises(ValueError, match='`pip install compel`, or leave'):
        editor.infer(f'a {TOY}', **ON, **QUICK)


def test_the_command_notes_it_to_draw_again(tiny_sd1, tmp_path):
    editor = make_word(tiny_sd1)
    randomise(editor)
    file = tmp_path / 'toy.safetensors'
    record = dict(editor.export_metadata(), step=9, seed=4)
    write_export(file, editor.learned_state(), record)
    words = [
        'infer',
        str(file),
        '--prompt',
        f'a ({TOY})1.4',
        f'{TOY}++ {LONG}',
    ]
    words += ['--num-images', '2', '--batch-size', '4']
    words += ['--options', 'num_inference_steps=2', 'prompt_weighting=True']

    assert main([*words, '--out-dir', str(tmp_path / 'out')]) == 0

    inferencer = EditInferencer(file, device='cpu')
    paths = sorted((tmp_path / 'out').glob('0*.png'))
    assert len(paths) == 4
    for path in paths:
        made = read_picture_record(path)
        assert made['options']['prompt_weighting'] is True
        again = inferencer(
            made['prompt'], seed=made['seed'], **made['options']
        )['samples'][0]
        with Image.open(path) as image:
            levels = np.array(image, int) - np.array(again, int)
        assert abs(levels).max() <= GREY_LEVEL
