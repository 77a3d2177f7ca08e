"""Textual Inversion: what trains, what it is conditioned on, where it goes."""

import warnings

import pytest
import torch
from mmengine.optim import OptimWrapper
from safetensors.torch import load_file, save_file
from tiny import at_step, batch_of, picture, pipeline_of, randomise
from tiny import make_word as make
from tolerances import EXACT

from mmhiper.io import (
    read_checkpoint,
    read_token_file,
    write_export,
    write_token_file,
)
from mmhiper.models.drawing import latent_shape
from mmhiper.models.loading import backbone_folder

PROMPTS = ('a <cat-toy>', 'the <cat-toy> at night', 'my <cat-toy>')


def raw_batch(pictures, prompts=PROMPTS):
    """What the collate function makes of items of the dataset."""
    data = batch_of(pictures, list(range(len(pictures))))
    for sample in data['data_samples']:
        sample.set_metainfo(dict(prompts=prompts))
    return data


def batch(editor, pictures, prompts=PROMPTS, training=False):
    """What a training step gets."""
    return editor.data_preprocessor(raw_batch(pictures, prompts), training)


def train(editor, iterations, pictures=None, first=0, lr=5e-3):
    """A plain loop; returns the optimizer."""
    pictures = pictures or [picture(0)]
    optimizer = torch.optim.AdamW(editor.parameters(), lr=lr)
    for iteration in range(first, first + iterations):
        at_step(iteration)
        data = batch(editor, pictures, training=True)
        loss, _ = editor.parse_losses(editor(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def draw(editor, prompt='a <cat-toy>', **options):
    """A picture of two steps."""
    return editor.infer(
        prompt,
        num_inference_steps=2,
        show_progress=False,
        return_type='tensor',
        **options,
    )['samples']


# ------------------------------------------------------------------ training
@pytest.mark.usefixtures('float64')
def test_it_starts_as_the_initialiser_word(tiny_folder):
    editor = make(tiny_folder, num_vectors_per_token=2)
    with torch.no_grad():
        ours = editor.condition(['a <cat-toy> dog']).tokens
    plain = editor.sd.encode_text(['a x x dog']).tokens

    torch.testing.assert_close(ours, plain, **EXACT)


def test_only_the_new_rows_train(tiny_folder):
    editor = make(tiny_folder, num_vectors_per_token=2)
    table = editor.sd.token_tables[0].clone()
    frozen = {k: v.clone() for k, v in editor.sd.state_dict().items()}
    start = editor.embedding.rows.detach().clone()
    optimizer = train(editor, 3)

    assert torch.equal(editor.sd.token_tables[0], table)
    for name, weight in editor.sd.state_dict().items():
        assert torch.equal(weight, frozen[name]), name
    assert (editor.embedding.rows != start).any(1).all()
    held = sum(
        value.numel()
        for state in optimizer.state.values()
        for value in state.values()
        if value.ndim
    )
    assert held == 2 * start.numel()  # Adam's two moments, of these rows


@pytest.mark.usefixtures('float64')
def test_the_gradient_is_that_of_a_trainable_table(tiny_folder):
    """Against the plain way: the rows in the table, all of it trainable."""
    editor = make(tiny_folder)
    randomise(editor)
    at_step(0)
    data = batch(editor, [picture(0)], prompts=('a <cat-toy> <cat-toy>',))
    losses = editor(**data, mode='loss')
    losses['loss'].backward()

    plain = make(tiny_folder)
    token = plain.sd.vocabulary.single_token('x')
    tables = plain.sd.token_tables
    widths = [table.shape[1] for table in tables]
    for table, rows in zip(
        tables, editor.embedding.rows.data.split(widths, 1), strict=True
    ):
        table.data[token] = rows[0]
        table.requires_grad_(True)
    plain.train_condition = lambda samples: plain.sd.encode_ids(
        [each.encode(['a x x']) for each in plain.sd.vocabularies]
    )
    expected = plain(**batch(plain, [picture(0)]), mode='loss')
    expected['loss'].backward()
    torch.testing.assert_close(losses['loss'], expected['loss'], **EXACT)
    gradient = torch.cat([table.grad[token] for table in tables])
    assert gradient.any()
    torch.testing.assert_close(
        editor.embedding.rows.grad[0], gradient, **EXACT
    )


@pytest.mark.usefixtures('float64')
def test_the_sentence_depends_on_seed_picture_and_iteration(tiny_sd1):
    editor = make(tiny_sd1)

    def conditions(iteration, pictures, seed=0):
        at_step(iteration, seed)
        data = batch(editor, pictures)
        with torch.no_grad():
            return editor.train_condition(data['data_samples']).tokens

    alone = torch.cat([conditions(i, [picture(0)]) for i in range(12)])
    together = torch.cat(
        [conditions(i, [picture(1), picture(0)])[1:] for i in range(12)]
    )
    torch.testing.assert_close(alone, together, **EXACT)
    assert len(alone.unique(dim=0)) == len(PROMPTS)
    other = torch.cat([conditions(i, [picture(0)], 1) for i in range(12)])
    assert not torch.equal(alone, other)


@pytest.mark.usefixtures('float64')
def test_accumulated_gradients_are_those_of_a_batch(tiny_sd1):
    pictures = [picture(0), picture(1)]
    together, apart = make(tiny_sd1), make(tiny_sd1)
    at_step(0)
    sgd = torch.optim.SGD(together.parameters(), lr=0.1)
    together.train_step(raw_batch(pictures), OptimWrapper(sgd))

    sgd = torch.optim.SGD(apart.parameters(), lr=0.1)
    wrapper = OptimWrapper(sgd, accumulative_counts=2)
    wrapper.initialize_count_status(apart, 0, 2)
    for each in pictures:
        apart.train_step(raw_batch([each]), wrapper)
    assert not torch.equal(apart.embedding.rows, apart.embedding.initial)
    torch.testing.assert_close(
        apart.embedding.rows, together.embedding.rows, **EXACT
    )


def test_latents_are_encoded_once(tiny_sd1):
    editor = make(tiny_sd1)
    calls = []
    editor.sd.vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    train(editor, 3, [picture(0), picture(1)])

    assert len(calls) == 2


def test_random_flips_are_off_by_default_and_reproducible(tiny_sd1):
    def seen(**options):
        editor = make(tiny_sd1, **options)
        inputs = []
        for iteration in range(16):
            at_step(iteration)
            data = batch(editor, [picture(0, 64)], training=True)
            inputs.append(data['inputs'])
        return torch.cat(inputs)

    plain = seen()
    assert len(plain.unique(dim=0)) == 1
    flips = seen(data_preprocessor=dict(random_flip=True))
    flipped = (flips == plain.flip(-1)).flatten(1).all(1)
    assert 0 < flipped.sum() < 16
    assert torch.equal(flips[~flipped], plain[~flipped])
    again = seen(data_preprocessor=dict(random_flip=True))
    assert torch.equal(flips, again)


def test_progressive_vectors_come_into_use_one_by_one(tiny_sd1):
    editor = make(tiny_sd1, num_vectors_per_token=3, progressive_interval=2)
    start = editor.embedding.rows.detach().clone()
    changed = []
    for iteration in range(7):
        train(editor, 1, first=iteration, lr=1e-2)
        moved = (editor.embedding.rows.grad != 0).any(1)
        changed.append(int(moved.sum()))

    assert changed == [1, 1, 2, 2, 3, 3, 3]
    assert editor.embedding.active == {'<cat-toy>': 3}
    assert (editor.embedding.rows != start).any(1).all()


def test_unused_progressive_vectors_take_no_part_in_pictures(tiny_sd1):
    editor = make(tiny_sd1, num_vectors_per_token=3, progressive_interval=100)
    train(editor, 2)
    with torch.no_grad():
        one = editor.condition(['a <cat-toy>']).tokens
        editor.embedding.rows[1:] = 7
        assert torch.equal(one, editor.condition(['a <cat-toy>']).tokens)
    assert editor.learned_state()['<cat-toy>'].shape[0] == 1


def test_each_picture_may_have_a_token_of_its_own(tiny_sd1):
    editor = make(tiny_sd1, per_image_tokens=2, per_image_mixing=1)
    at_step(0)
    data = batch(editor, [picture(0), picture(1)], ('a <cat-toy> at night',))
    with torch.no_grad():
        ours = editor.train_condition(data['data_samples']).tokens
    rows = torch.cat([editor.embedding.rows, editor.embedding.image_rows])
    # the plain way: the rows written over letters of the table
    plain = make(tiny_sd1).sd
    for letter, row in zip('xyz', rows.detach(), strict=True):
        plain.token_tables[0][plain.vocabulary.single_token(letter)] = row
    texts = ['a x at night with y', 'a x at night with z']
    assert torch.equal(ours, plain.encode_text(texts).tokens)

    editor(**data, mode='loss')['loss'].backward()
    assert (editor.embedding.image_rows.grad != 0).any(1).all()
    # they stay at home when the word is used
    with torch.no_grad():
        before = editor.condition(['a <cat-toy>']).tokens
        editor.embedding.image_rows.add_(1)
        assert torch.equal(before, editor.condition(['a <cat-toy>']).tokens)


def test_a_quarter_of_the_steps_mixes_wherever_it_takes_place(tiny_sd1):
    """Which one does depends on seed, picture and iteration alone."""
    steps = 200

    def mixed(pictures, seed=0, **options):
        editor = make(tiny_sd1, per_image_tokens=2, **options)
        with torch.no_grad():
            plain = editor.encode(['a <cat-toy>']).tokens[0]
        found = []
        for iteration in range(steps):
            at_step(iteration, seed)
            data = batch(editor, pictures, ('a <cat-toy>',))
            with torch.no_grad():
                text = editor.train_condition(data['data_samples'])
            found.append(not torch.equal(text.tokens[-1], plain))
        return torch.tensor(found)

    alone = mixed([picture(0)])
    # of a binomial distribution, five standard deviations to each side
    share = alone.float().mean()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / steps) ** 0.5
    beside = mixed([picture(1), picture(0)])
    assert torch.equal(alone, beside)
    assert not torch.equal(alone, mixed([picture(0)], seed=1))
    assert not mixed([picture(0)], per_image_mixing=0).any()


def test_a_step_without_a_picture_token_leaves_these_alone(tiny_sd1):
    editor = make(tiny_sd1, per_image_tokens=1, per_image_mixing=0)
    start = editor.embedding.image_rows.detach().clone()
    train(editor, 2)
    assert torch.equal(editor.embedding.image_rows, start)


def test_more_pictures_than_image_tokens_are_refused(tiny_sd1):
    editor = make(tiny_sd1, per_image_tokens=1)
    at_step(0)
    with pytest.raises(ValueError, match='number of training pictures'):
        editor(**batch(editor, [picture(0), picture(1)]), mode='loss')


@pytest.mark.usefixtures('float64')
def test_the_regulariser_is_the_mean_squared_distance(tiny_sd1):
    editor = make(tiny_sd1, num_vectors_per_token=2, embedding_reg_weight=0.5)
    randomise(editor)
    at_step(0)
    losses = editor(**batch(editor, [picture(0)]), mode='loss')

    moved = editor.embedding.rows - editor.embedding.initial
    expected = 0.5 * (moved[0].dot(moved[0]) + moved[1].dot(moved[1])) / 2
    torch.testing.assert_close(losses['loss_reg'], expected, **EXACT)
    assert 'loss_reg' not in make(tiny_sd1)(
        **batch(editor, [picture(0)]), mode='loss'
    )


def test_a_random_start_is_reproducible_and_of_the_tables_size(tiny_sd1):
    one = make(tiny_sd1, initialize_token=None, num_vectors_per_token=8)
    two = make(tiny_sd1, initialize_token=None, num_vectors_per_token=8)

    assert torch.equal(one.embedding.rows, two.embedding.rows)
    ratio = one.embedding.rows.std() / one.sd.token_tables[0].std()
    assert 0.8 < ratio < 1.25


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(initialize_token='xy'), "'x', 'y</w>'"),
        (dict(placeholder_token='x'), 'exists in the vocabulary'),
        (dict(num_vectors_per_token=0), r'in \[1, 75\]'),
        (dict(progressive_interval=0), 'at least 1'),
        (dict(per_image_tokens=-1), r'in \[0, 1000\]'),
        (dict(per_image_mixing=1.5), r'in \[0, 1\]'),
        (dict(val_prompts=['a dog']), 'must have the placeholder'),
    ],
)
def test_options_out_of_range_are_refused(tiny_sd1, options, words):
    with pytest.raises(ValueError, match=words):
        make(tiny_sd1, **options)


def test_sentences_without_the_placeholder_are_refused(tiny_sd1):
    editor = make(tiny_sd1)
    at_step(0)
    with pytest.raises(ValueError, match='same placeholder as the model'):
        editor(**batch(editor, [picture(0)], prompts=('a dog',)), mode='loss')


def test_a_prompt_without_the_placeholder_warns(tiny_sd1):
    editor = make(tiny_sd1)
    with pytest.warns(UserWarning, match='no placeholder'):
        draw(editor, 'a dog')
    with pytest.warns(UserWarning, match='is cut'):
        draw(editor, 'x' * 90 + ' <cat-toy>')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        draw(editor, 'a <cat-toy>')


# ---------------------------------------------------------- several concepts
@pytest.mark.usefixtures('float64')
def test_several_concepts_in_one_prompt(tiny_sd1, tmp_path):
    editor = make(tiny_sd1, num_vectors_per_token=2)
    width = editor.embedding.rows.shape[1]
    rows = torch.randn(
        (3, width),
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float32,  # which files hold
    )
    save_file({'<sketchy>': rows}, tmp_path / 'sketchy.safetensors')
    added = editor.load_embeddings([tmp_path / 'sketchy.safetensors'])
    assert added == ['<sketchy>']
    assert editor.placeholders == ['<cat-toy>', '<sketchy>']

    # the plain way: rows written over letters of the table
    with torch.no_grad():
        ours = editor.condition(['a <cat-toy> as <sketchy>']).tokens
    plain = make(tiny_sd1).sd
    for letter, row in zip('bcd', rows, strict=True):
        plain.token_tables[0][plain.vocabulary.single_token(letter)] = row
    theirs = plain.encode_text(['a x x as b c d']).tokens
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert list(editor.state_dict()) == list(make(tiny_sd1).state_dict())


def test_a_taken_placeholder_is_refused_and_nothing_is_added(
    tiny_sd1, tmp_path
):
    editor = make(tiny_sd1)
    width = editor.embedding.rows.shape[1]
    files = []
    for name in ('<sketchy>', '<cat-toy>'):
        files.append(tmp_path / f'{name[1:-1]}.safetensors')
        save_file({name: torch.ones(1, width)}, files[-1])

    with pytest.raises(ValueError, match='taken'):
        editor.load_embeddings(files)
    assert editor.placeholders == ['<cat-toy>']
    editor.load_embeddings(files, rename={'<cat-toy>': '<other>'})
    assert editor.placeholders == ['<cat-toy>', '<sketchy>', '<other>']


def test_an_embedding_of_another_width_is_refused(tiny_sd1, tmp_path):
    path = tmp_path / 'wide.safetensors'
    save_file({'<wide>': torch.ones(1, 99)}, path)
    with pytest.raises(ValueError, match='99 wide'):
        make(tiny_sd1).load_embeddings([path])


def test_a_loaded_word_may_stand_in_a_negative_prompt(tiny_sd1, tmp_path):
    editor = make(tiny_sd1)
    width = editor.embedding.rows.shape[1]
    path = tmp_path / 'bad.safetensors'
    rows = torch.randn(1, width, generator=torch.Generator().manual_seed(2))
    save_file({'<bad>': rows}, path)
    editor.load_embeddings([path])

    plain = draw(editor)
    away = draw(editor, negative_prompt='<bad>')
    assert not torch.allclose(plain, away, atol=1e-3)


# --------------------------------------------------------- leaving the house
def same_picture(editor, pipeline):
    """Whether both draw a prompt with the learned word alike."""
    prompt = 'A photo of <cat-toy>, at night!'
    latents = torch.randn(
        (1, *latent_shape(editor.sd)),
        generator=torch.Generator().manual_seed(3),
    )
    options = dict(num_inference_steps=4, guidance_scale=7.5, latents=latents)
    theirs = pipeline(prompt, output_type='pt', **options).images
    ours = editor.infer(
        prompt, show_progress=False, return_type='tensor', **options
    )['samples']
    torch.testing.assert_close((ours + 1) / 2, theirs, **EXACT)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('count', [1, 3])
def test_the_export_gives_the_same_picture_in_diffusers(
    tiny_one_text, tmp_path, count
):
    editor = make(tiny_one_text, num_vectors_per_token=count)
    randomise(editor)
    path = tmp_path / 'iter_1.safetensors'
    write_export(path, editor.learned_state(), editor.export_metadata())
    pipeline = pipeline_of(tiny_one_text)
    pipeline.load_textual_inversion(path)
    same_picture(editor, pipeline)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('count', [1, 3])
def test_an_export_for_sdxl_gives_the_same_picture_in_diffusers(
    tiny_sdxl, tmp_path, count
):
    editor = make(tiny_sdxl, num_vectors_per_token=count)
    randomise(editor)
    path = tmp_path / 'iter_1.safetensors'
    write_export(path, editor.learned_state(), editor.export_metadata())
    pipeline = pipeline_of(tiny_sdxl)
    rows = load_file(path)
    pipeline.load_textual_inversion(
        rows['clip_l'],
        token='<cat-toy>',
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
    )
    pipeline.load_textual_inversion(
        rows['clip_g'],
        token='<cat-toy>',
        text_encoder=pipeline.text_encoder_2,
        tokenizer=pipeline.tokenizer_2,
    )
    same_picture(editor, pipeline)


def test_files_for_sdxl_come_and_go(tiny_sdxl, tmp_path):
    editor = make(tiny_sdxl, num_vectors_per_token=2)
    randomise(editor)
    export = tmp_path / 'iter_1.safetensors'
    write_export(export, editor.learned_state(), editor.export_metadata())
    kohya = tmp_path / '<cat-toy>.safetensors'
    write_token_file(kohya, read_token_file(export), 'kohya')
    assert set(load_file(kohya)) == {'clip_l', 'clip_g'}

    other = make(tiny_sdxl, placeholder_token='<other>')
    assert other.load_embeddings([kohya]) == ['<cat-toy>']
    with torch.no_grad():
        ours = editor.condition(['a <cat-toy>!'])
        theirs = other.condition(['a <cat-toy>!'])
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.pooled, theirs.pooled)
    again = make(tiny_sdxl, num_vectors_per_token=2)
    again.load_state_dict(read_checkpoint(export))
    assert torch.equal(draw(again), draw(editor))


def test_rows_without_a_name_are_a_start_for_the_word(tiny_sdxl, tmp_path):
    both = make(tiny_sdxl, num_vectors_per_token=2)
    randomise(both)
    named = both.learned_state()
    pivotal = {
        f'text_encoders_{i}': named[key]
        for i, key in enumerate(('clip_l', 'clip_g'))
    }
    save_file(pivotal, tmp_path / 'embeddings.pti')

    options = dict(num_vectors_per_token=2)
    path = str(tmp_path / 'embeddings.pti')
    editor = make(tiny_sdxl, embedding=path, **options)

    assert torch.equal(editor.embedding.rows, both.embedding.rows)
    # as the words of their own scripts
    assert both.load_embeddings([path]) == ['<s0>', '<s1>']
    with torch.no_grad():
        ours = both.condition(['a <cat-toy>!'])
        theirs = both.condition(['a <s0><s1>!'])
    assert torch.equal(ours.tokens, theirs.tokens)


def test_a_bare_tensor_is_a_start_for_the_word(tiny_sd1, tmp_path):
    wanted = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1))
    torch.save(wanted, tmp_path / 'bare.pt')

    editor = make(tiny_sd1, embedding=str(tmp_path / 'bare.pt'))

    assert torch.equal(editor.embedding.rows.detach().cpu(), wanted[0])


def test_a_word_for_other_text_encoders_is_refused(
    tiny_sd1, tiny_sdxl, tmp_path
):
    both = make(tiny_sdxl).learned_state()
    save_file(both, tmp_path / 'both.safetensors')
    save_file({'clip_l': both['clip_l']}, tmp_path / 'one.safetensors')

    with pytest.raises(ValueError, match=r'32 wide, but .* 32 \+ 48 wide'):
        make(tiny_sd1).load_embeddings([tmp_path / 'both.safetensors'])
    with pytest.raises(ValueError, match=r'32 \+ 48 wide, but .* 32 wide'):
        make(tiny_sdxl).load_embeddings([tmp_path / 'one.safetensors'])
    with pytest.raises(ValueError, match='does not belong'):
        make(tiny_sd1).load_state_dict(both)


def test_an_export_of_unfinished_progress_loads_back(tiny_sd1):
    options = dict(num_vectors_per_token=3, progressive_interval=2)
    editor = make(tiny_sd1, **options)
    train(editor, 4)
    again = make(tiny_sd1, **options)
    again.load_state_dict(editor.learned_state())

    assert again.embedding.active == {'<cat-toy>': 2}
    assert torch.equal(draw(again), draw(editor))


def test_a_checkpoint_of_other_size_is_refused(tiny_sd1, tiny_sd2):
    one = make(tiny_sd1)
    with pytest.raises(ValueError, match='does not belong'):
        one.load_state_dict(make(tiny_sd2).state_dict())
    with pytest.raises(ValueError, match='does not belong'):
        one.load_state_dict(make(tiny_sd2).learned_state())
    with pytest.raises(ValueError, match='does not belong'):
        one.load_state_dict(
            make(tiny_sd1, num_vectors_per_token=2).state_dict()
        )


@pytest.mark.usefixtures('float64')
def test_a_written_file_gives_the_same_picture_of_the_bundled_model(tmp_path):
    editor = make('mini-sd', initialize_token='toy', num_vectors_per_token=2)
    randomise(editor)
    path = tmp_path / 'toy.safetensors'
    write_token_file(path, editor.learned_state())
    pipeline = pipeline_of(backbone_folder('mini-sd'))
    pipeline.load_textual_inversion(path)

    prompt = 'a photo of a sitting <cat-toy> on the beach'
    theirs = pipeline(
        prompt,
        num_inference_steps=10,
        guidance_scale=editor.default_guidance,
        generator=torch.Generator().manual_seed(3),
        output_type='pt',
    ).images
    ours = editor.infer(
        prompt,
        num_inference_steps=10,
        seed=3,
        show_progress=False,
        return_type='tensor',
    )['samples']
    torch.testing.assert_close((ours + 1) / 2, theirs, **EXACT)
