"""Latent diffusion for text to image, against its own pipeline."""

import shutil

import pytest
import torch
from inversion import make as make_inversion
from safetensors.torch import save_file
from single_file import original_ldm_layout
from tiny import (
    at_step,
    batch_of,
    make_hiper,
    make_word,
    picture,
    pipeline_of,
    randomise,
    train,
)
from tolerances import EXACT

import mmhiper
from mmhiper.io import TokenFile, original_format, read_token_file
from mmhiper.models import StableDiffusion
from mmhiper.models.backbones import LatentDiffusion

TEXTS = ['a dog', '', 'x' * 200, 'A Cat, at night!']
QUICK = dict(num_inference_steps=4, show_progress=False, return_type='tensor')


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_it_is_found_by_its_parts(tiny_ldm):
    sd = StableDiffusion(str(tiny_ldm))

    assert type(sd) is LatentDiffusion
    assert (sd.image_size, sd.vae_factor, sd.num_positions) == (64, 8, 77)
    assert sd.latent_shape(64, 32) == (4, 8, 4)
    assert sd.guidance_scale == 10
    assert sd.attention is sd.unet


@pytest.mark.usefixtures('float64')
def test_texts_are_encoded_as_by_the_pipeline(tiny_ldm):
    pipeline = pipeline_of(tiny_ldm)
    ids = pipeline.tokenizer(
        TEXTS,
        padding='max_length',
        max_length=77,
        truncation=True,
        return_tensors='pt',
    ).input_ids

    with torch.no_grad():
        close(
            StableDiffusion(str(tiny_ldm)).encode_text(TEXTS).tokens,
            pipeline.bert(ids)[0],
        )


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('scale', [None, 1.0, 5.0])
def test_pictures_are_those_of_the_pipeline(tiny_ldm, scale):
    editor = make_word(tiny_ldm)
    latents = noise(0, 2, 4, 8, 8)
    text = editor.sd.encode_text(['a dog', 'a cat'])

    ours = editor.sample(
        text, latents=latents, num_inference_steps=4, guidance_scale=scale
    )
    theirs = pipeline_of(tiny_ldm)(
        ['a dog', 'a cat'],
        latents=latents,
        num_inference_steps=4,
        guidance_scale=10.0 if scale is None else scale,
        output_type='pt',
    ).images

    close(ours / 2 + 0.5, theirs)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('suffix', ['.ckpt', '.safetensors'])
def test_the_original_file_is_the_same_model(tiny_ldm, tmp_path, suffix):
    shutil.copytree(
        tiny_ldm,
        tmp_path,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns('*.safetensors'),
    )
    path = tmp_path / f'model{suffix}'
    weights = original_ldm_layout(tiny_ldm)
    # as in the original: numbers of the schedule beside the weights
    weights['betas'] = torch.zeros(1000)
    if suffix == '.ckpt':
        torch.save(dict(state_dict=weights, global_step=1), path)
    else:
        save_file({k: w.contiguous() for k, w in weights.items()}, path)

    sd, plain = StableDiffusion(str(path)), StableDiffusion(str(tiny_ldm))

    assert type(sd) is LatentDiffusion
    ours, theirs = dict(sd.named_parameters()), dict(plain.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name
    z, t = noise(0, 1, 4, 8, 8), torch.tensor(300)
    text = sd.encode_text(['a dog'])
    close(sd.predict(z, t, text), plain.predict(z, t, text))
    close(sd.decode(z), plain.decode(z))


def test_the_original_file_alone_does_not_say_how_to_read_it(
    tiny_ldm, tmp_path
):
    path = tmp_path / 'model.ckpt'
    torch.save(dict(state_dict=original_ldm_layout(tiny_ldm)), path)

    with pytest.raises(ValueError, match=r'latent diffusion.*beside the mod'):
        StableDiffusion(str(path))


@pytest.mark.usefixtures('float64')
def test_a_word_is_a_row_of_the_table(tiny_ldm):
    """As if the table of the text encoder had these rows too."""
    editor = make_word(tiny_ldm, num_vectors_per_token=2)
    randomise(editor)
    rows = editor.embedding.rows_of('<cat-toy>').detach()
    pipeline = pipeline_of(tiny_ldm)
    bert, size = pipeline.bert, len(pipeline.tokenizer)
    table = bert.get_input_embeddings()
    table.weight = torch.nn.Parameter(torch.cat([table.weight.data, rows]))
    start, a, end = pipeline.tokenizer('a').input_ids
    ids = torch.full((1, 77), pipeline.tokenizer.pad_token_id)
    ids[0, :5] = torch.tensor([start, a, size, size + 1, end])

    with torch.no_grad():
        close(
            editor.condition(['a <cat-toy>']).tokens,
            bert(ids)[0],
        )


@pytest.mark.usefixtures('float64')
def test_textual_inversion_learns_by_the_loss_of_the_paper(tiny_ldm):
    editor = make_word(tiny_ldm, initialize_token='dog')
    dog = editor.sd.vocabulary.single_token('dog')
    table = editor.sd.token_tables[0]
    rows = editor.embedding.rows_of('<cat-toy>')
    assert torch.equal(rows, table[dog][None])

    at_step(3)
    batch = batch_of([picture(0)], [0])
    batch['data_samples'][0].set_metainfo(dict(prompts=('a <cat-toy>',)))
    data = editor.data_preprocessor(batch, True)
    loss, _ = editor.parse_losses(editor(**data, mode='loss'))
    draw = editor._draw_step(**data)
    alpha = editor.sd.scheduler.alphas_cumprod.double()[draw.timesteps]
    noised = alpha.sqrt() * draw.latents + (1 - alpha).sqrt() * draw.noise
    pipeline = pipeline_of(tiny_ldm)
    with torch.no_grad():
        text = pipeline.bert(
            editor.sd.vocabulary.encode(['a dog'])
        ).last_hidden_state
        made = pipeline.unet(noised, draw.timesteps, text).sample
    close(loss.detach(), (made - draw.noise).square().mean())

    loss.backward()
    assert rows.grad.abs().max() > 0


def test_hiper_learns_and_edits(tiny_ldm):
    editor = make_hiper(tiny_ldm)
    before = editor.infer('a cat', **QUICK)['samples']
    start = editor.embedding.tail.detach().clone()

    tail = train(editor, [picture(0)], 2)
    after = editor.infer('a cat', **QUICK)['samples']

    assert tail.shape == (1, 3, 48)
    assert not torch.equal(tail, start)
    assert not torch.equal(before, after)
    text = editor.condition(['a cat'], strength=0.5).tokens
    assert torch.equal(text[:, -3:], 0.5 * tail)
    marks = editor.sd.encode_text(['a cat']).tokens
    # the content is that of the text, which BERT reads in both directions
    assert torch.equal(text[:, :-3], marks[:, :-3])


def test_attention_is_controlled(tiny_ldm):
    editor = make_inversion(tiny_ldm, 'DDIMInversion')
    data = editor.data_preprocessor(batch_of([picture(0)], [0]), False)
    editor.invert(**data)

    same = editor.infer('a dog', return_type='tensor', show_progress=False)
    other = editor.infer('a cat', return_type='tensor', show_progress=False)

    assert not torch.equal(same['samples'], other['samples'])
    assert editor.show_attention('dog').size[0] > 0


def test_words_come_and_go_as_files_of_the_original(tiny_ldm, tmp_path):
    rows = noise(0, 2, 48)
    path = tmp_path / 'embeddings.pt'
    torch.save(
        dict(
            string_to_token={'*': torch.tensor(1008)},
            string_to_param=torch.nn.ParameterDict({'*': rows}),
        ),
        path,
    )
    editor = make_word(tiny_ldm, placeholder_token='<new>')

    assert editor.load_embeddings([path]) == ['*']
    assert torch.equal(editor.words.loaded['*'], rows)
    assert read_token_file(path).width == '48'
    plain = editor.sd.encode_text(['a *']).tokens
    assert not torch.equal(editor.condition(['a *']).tokens, plain)


def test_a_file_of_the_original_has_the_id_of_its_vocabulary():
    tokens = TokenFile({sign: noise(0, 1, 1280) for sign in '!*@[a~'}, 'any')

    written = original_format.write(tokens)

    # of the uncased BERT, which the original finds a word by
    assert written['string_to_token'] == {
        '!': 999,
        '*': 1008,
        '@': 1030,
        '[': 1031,
        'a': 1037,
        '~': 1066,
    }
    assert written['string_to_param']['*'].shape == (1, 1280)
    assert 'latent diffusion' in tokens.describe()


def test_a_word_of_several_tokens_is_told_with_others(tiny_ldm):
    with pytest.raises(ValueError) as error:
        make_word(tiny_ldm, initialize_token='dogs')

    assert "'dogs' is 2: 'dog', '##s'" in str(error.value)
    assert "Take a word of one token, such as 'dog'" in str(error.value)


def test_it_has_no_pipeline_for_what_was_learned(tiny_ldm):
    with pytest.raises(ValueError, match=r'Draw with `editor\.infer`'):
        mmhiper.to_diffusers(make_hiper(tiny_ldm))


def test_nothing_is_printed(tiny_ldm, capfd):
    StableDiffusion(str(tiny_ldm)).encode_text(['a dog'])

    assert capfd.readouterr() == ('', '')
