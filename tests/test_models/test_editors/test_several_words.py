"""Several words in one run, words from files, and where they go."""

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from tiny import at_step, batch_of, picture, randomise
from tiny import make_word as make

from mmhiper.apis import load_editor
from mmhiper.io import (
    read_checkpoint,
    read_token_file,
    write_export,
    write_token_file,
)

WORDS = ['<toy>', '<cat>']
SENTENCES = {'<toy>': ('a <toy>', 'my <toy>'), '<cat>': ('the <cat>',)}


def make_two(folder, **options):
    """An editor of two words, from the letters x and y."""
    return make(
        folder,
        **dict(
            placeholder_token=WORDS, initialize_token=['x', 'y'], **options
        ),
    )


def batch(editor, *pictures):
    """A training batch; each picture by its number and its sentences."""
    data = batch_of(
        [picture(number) for number, _ in pictures],
        [number for number, _ in pictures],
    )
    for sample, (_, prompts) in zip(
        data['data_samples'], pictures, strict=True
    ):
        sample.set_metainfo(dict(prompts=prompts))
    return editor.data_preprocessor(data, True)


def train(editor, steps):
    """A plain loop over batches, at the iterations that they name."""
    optimizer = torch.optim.AdamW(editor.parameters(), lr=5e-3)
    for iteration, pictures in steps:
        at_step(iteration)
        data = batch(editor, *pictures)
        loss, _ = editor.parse_losses(editor(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def rows_over_letters(folder, **rows):
    """The plain way: a frozen model with rows written over its letters."""
    sd = make(folder).sd
    for letter, row in rows.items():
        for table, part in zip(
            sd.token_tables,
            row.detach().split([t.shape[1] for t in sd.token_tables], -1),
            strict=True,
        ):
            table[sd.vocabulary.single_token(letter)] = part
    return sd


# ------------------------------------------------------------------ training
@pytest.mark.parametrize('regularised', [0.0, 0.5])
def test_a_word_learns_what_it_would_learn_alone(tiny_sd1, regularised):
    """No momentum, decay or pull reaches it in the steps of the other."""
    options = dict(embedding_reg_weight=regularised)
    toy, cat = [(0, SENTENCES['<toy>'])], [(1, SENTENCES['<cat>'])]
    steps = [(i, toy if i % 3 else cat) for i in range(9)]
    both = make_two(tiny_sd1, **options)
    train(both, steps)

    for word, letter, own in (('<toy>', 'x', toy), ('<cat>', 'y', cat)):
        alone = make(
            tiny_sd1,
            placeholder_token=word,
            initialize_token=letter,
            **options,
        )
        train(alone, [step for step in steps if step[1] is own])
        assert not torch.equal(alone.embedding.rows, alone.embedding.initial)
        # ids differ by the row, everything else is the same arithmetic
        assert torch.equal(both.embedding.rows_of(word), alone.embedding.rows)


def test_concepts_of_a_batch_do_not_share_its_mean(tiny_folder):
    """Three pictures of one, one of the other: gradients as if alone."""
    pictures = [(k, SENTENCES['<toy>']) for k in range(3)]
    pictures += [(3, SENTENCES['<cat>'])]
    both = make_two(tiny_folder)
    at_step(0)
    both(**batch(both, *pictures), mode='loss')['loss'].backward()

    for word, letter, own in (
        ('<toy>', 'x', pictures[:3]),
        ('<cat>', 'y', pictures[3:]),
    ):
        alone = make(
            tiny_folder, placeholder_token=word, initialize_token=letter
        )
        alone(**batch(alone, *own), mode='loss')['loss'].backward()
        expected = alone.embedding.rows.grad
        assert expected.any()
        # batches of other sizes are summed in another order
        scale = float(expected.abs().max())
        found = both.embedding.rows_of(word).grad
        assert torch.allclose(found, expected, rtol=0, atol=1e-2 * scale)


def test_a_sentence_may_have_several_words(tiny_sd1):
    editor = make_two(tiny_sd1, num_vectors_per_token=[2, 1])
    randomise(editor)
    at_step(0)
    data = batch(editor, (0, ('a <cat> as <toy>, <cat>',)))
    editor(**data, mode='loss')['loss'].backward()
    for word in WORDS:
        assert (editor.embedding.rows_of(word).grad != 0).any(1).all()

    toy, cat = (editor.embedding.rows_of(word) for word in WORDS)
    plain = rows_over_letters(tiny_sd1, x=toy[0], y=toy[1], z=cat[0])
    with torch.no_grad():
        ours = editor.condition(['a <cat> as <toy>, <cat>']).tokens
    assert torch.equal(ours, plain.encode_text(['a z as x y, z']).tokens)


def test_words_of_other_lengths_progress_side_by_side(tiny_sd1):
    editor = make_two(
        tiny_sd1, num_vectors_per_token=[3, 1], progressive_interval=2
    )
    used = []
    for iteration in (0, 2, 9):
        at_step(iteration)
        data = batch(editor, (0, SENTENCES['<toy>']))
        editor.loss(**data)
        used.append(tuple(editor.embedding.active.values()))
    assert used == [(1, 1), (2, 1), (3, 1)]


def test_the_regulariser_is_each_words_own(tiny_sd1):
    editor = make_two(
        tiny_sd1, num_vectors_per_token=[2, 1], embedding_reg_weight=0.5
    )
    randomise(editor)
    toy, cat = (
        editor.embedding.rows_of(word) - editor.embedding.initial_of(word)
        for word in WORDS
    )
    at_step(0)
    pictures = [(k, SENTENCES[word]) for k, word in enumerate(WORDS)]
    both = editor(**batch(editor, *pictures), mode='loss')['loss_reg']
    expected = 0.5 * (toy[0].dot(toy[0]) + toy[1].dot(toy[1])) / 2
    alone = editor(**batch(editor, pictures[0]), mode='loss')['loss_reg']
    assert torch.allclose(alone, expected)
    assert torch.allclose(both, expected + 0.5 * cat[0].dot(cat[0]))


def test_the_sentences_are_those_of_the_backbone(tiny_sd1):
    editor = make(tiny_sd1, placeholder_token='<toy>')
    prompts = {'default': ('a <toy>',), tiny_sd1.name: ('my <toy>',)}
    at_step(0)

    def text(prompts):
        data = batch(editor, (0, prompts))
        with torch.no_grad():
            return editor.train_condition(data['data_samples']).tokens

    assert torch.equal(text(prompts), text(('my <toy>',)))
    prompts['another'] = prompts.pop(tiny_sd1.name)
    assert torch.equal(text(prompts), text(('a <toy>',)))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(placeholder_token=[]), 'several different'),
        (dict(placeholder_token=['<a>', '<a>']), 'several different'),
        (dict(placeholder_token=['<a>', 'b<a>']), 'contain one another'),
        (dict(initialize_token=['x', 'y', 'z']), '`initialize_token` must be'),
        (dict(num_vectors_per_token=[1]), '`num_vectors_per_token` must be'),
        (dict(num_vectors_per_token=[1, 0]), r'in \[1, 75\]'),
        (dict(val_prompts=['a <toy>', 'a dog']), "'<toy>', '<cat>'"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tiny_sd1, options, words):
    with pytest.raises(ValueError, match=words):
        make(tiny_sd1, **{'placeholder_token': WORDS, **options})


def test_a_preview_and_a_test_show_each_word(tiny_sd1):
    editor = make_two(tiny_sd1)

    captions = [caption for caption, _ in editor.preview(2)]
    assert captions == ['a photo of <toy>', 'a photo of <cat>']
    texts = [text for text, *_ in editor.comparisons()]
    assert texts == ['a photo of x', 'a photo of y']
    data = batch(editor, (0, ('a <toy>',)), (1, ('a <toy> and a <cat>',)))
    toy, both = data['data_samples']
    assert [editor.is_about(k, toy) for k in (0, 1)] == [True, False]
    assert [editor.is_about(k, both) for k in (0, 1)] == [True, True]


# ------------------------------------------------------------ coming, going
def test_a_checkpoint_says_which_word_is_which(tiny_sd1, tmp_path):
    words = ['<v1.5>', '<v%2E>']  # PyTorch has no names with dots
    editor = make(tiny_sd1, placeholder_token=words)
    randomise(editor)
    torch.save(dict(state_dict=editor.state_dict()), tmp_path / 'a.pth')
    state = torch.load(tmp_path / 'a.pth')['state_dict']
    again = make(tiny_sd1, placeholder_token=words)
    again.load_state_dict(state)
    for word in words:
        rows = again.embedding.rows_of(word)
        assert torch.equal(rows, editor.embedding.rows_of(word))

    other = make(tiny_sd1, placeholder_token=words[::-1])
    other.load_state_dict(state)  # by name, whatever the order
    for word in words:
        rows = other.embedding.rows_of(word)
        assert torch.equal(rows, editor.embedding.rows_of(word))
    with pytest.raises(ValueError, match='does not belong'):
        make(tiny_sd1, placeholder_token=WORDS).load_state_dict(state)
    with pytest.raises(ValueError, match='does not belong'):
        make(tiny_sd1, placeholder_token=words[0]).load_state_dict(state)


def test_a_checkpoint_of_one_word_is_as_it_always_was(tiny_sd1):
    state = make(tiny_sd1, num_vectors_per_token=2).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == {'embedding.rows': (2, 32), 'embedding.num_active': ()}


@pytest.mark.parametrize('number', [0, 3])
def test_a_damaged_number_of_vectors_is_refused(tiny_sd1, number):
    editor = make(tiny_sd1, num_vectors_per_token=2)
    state = editor.state_dict()
    state['embedding.num_active'] = torch.tensor(number)
    with pytest.raises(ValueError, match='damaged'):
        editor.load_state_dict(state)


def test_exports_of_several_words_come_and_go(tiny_folder, tmp_path):
    editor = make_two(tiny_folder, num_vectors_per_token=[2, 1])
    randomise(editor)
    path = tmp_path / 'iter_1.safetensors'
    metadata = editor.export_metadata()
    write_export(path, editor.learned_state(), metadata)
    assert metadata['arguments']['placeholder_token'] == WORDS
    tokens = read_token_file(path)
    assert sorted(tokens.placeholders) == sorted(WORDS)
    for word in WORDS:
        assert torch.equal(
            tokens.rows_of(word), editor.embedding.rows_of(word)
        )

    prompts = ['a <cat> as <toy>']
    with torch.no_grad():
        expected = editor.condition(prompts).tokens
        again = make_two(tiny_folder, num_vectors_per_token=[2, 1])
        again.load_state_dict(read_checkpoint(path))
        assert torch.equal(again.condition(prompts).tokens, expected)
        other = make(tiny_folder, placeholder_token='<other>')
        assert set(other.load_embeddings(path)) == set(WORDS)
        assert torch.equal(other.condition(prompts).tokens, expected)


def test_diffusers_gets_every_word(tiny_one_text):
    editor = make_two(tiny_one_text, num_vectors_per_token=[2, 1])
    randomise(editor)
    pipeline = editor.to_diffusers()
    text = 'a <cat> as <toy>'
    theirs = pipeline.encode_prompt(text, 'cpu', 1, False)[0]
    with torch.no_grad():
        ours = editor.condition([text]).tokens
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_star_of_the_original_is_a_word(tiny_sd1, tmp_path):
    editor = make(tiny_sd1, placeholder_token='*')
    randomise(editor)
    path = tmp_path / 'embeddings.pt'
    write_token_file(path, editor.learned_state(), 'original')
    other = make(tiny_sd1)
    assert other.load_embeddings(path) == ['*']
    with torch.no_grad():
        ours = editor.condition(['a photo of *, at night']).tokens
        theirs = other.condition(['a photo of *, at night']).tokens
    plain = rows_over_letters(tiny_sd1, x=editor.embedding.rows[0])
    expected = plain.encode_text(['a photo of x, at night']).tokens
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, expected)
    with pytest.raises(ValueError, match='load_textual_inversion'):
        editor.to_diffusers()


# ------------------------------------------------------------ words of files
def file_of(folder, words, name='words.safetensors'):
    """A diffusers file with rows by word."""
    save_file(words, folder / name)
    return folder / name


def test_a_training_starts_from_a_file(tiny_sd1, tmp_path):
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    path = file_of(tmp_path, {'<cat>': rows, '<dog>': rows + 1})
    editor = make_two(tiny_sd1, num_vectors_per_token=3, embedding=str(path))
    cat = editor.embedding.rows_of('<cat>')
    start = editor.embedding.initial_of('<cat>')
    assert torch.equal(cat[:2], rows)
    assert torch.equal(cat[2], start[2])
    toy = editor.embedding.rows_of('<toy>')
    assert torch.equal(toy, editor.embedding.initial_of('<toy>'))
    # the pull goes to the initialiser, as in the original
    expected = (rows - start[:2]).square().sum() / 3
    assert torch.allclose(editor.embedding.drift('<cat>'), expected)
    assert 'embedding' not in editor.export_metadata()


def test_a_single_word_of_a_file_is_the_editors_own(tiny_sd1, tmp_path):
    """Whatever it is called there: other programs call it `*`."""
    rows = torch.ones(1, 32)
    path = file_of(tmp_path, {'*': rows})
    editor = make(tiny_sd1, embedding=str(path))
    assert torch.equal(editor.embedding.rows, rows)


def test_files_to_start_from_that_do_not_fit(tiny_sd1, tmp_path):
    two = file_of(tmp_path, {'<toy>': torch.ones(2, 32)})
    with pytest.raises(ValueError, match=r'has 2 vectors.*to 2 or more'):
        make_two(tiny_sd1, embedding=str(two))
    wide = file_of(tmp_path, {'<toy>': torch.ones(1, 64)}, 'w.safetensors')
    with pytest.raises(ValueError, match='64 wide'):
        make_two(tiny_sd1, embedding=str(wide))
    other = file_of(tmp_path, {'<dog>': torch.ones(1, 32)}, 'o.safetensors')
    with pytest.raises(ValueError, match="must hold '<toy>', '<cat>'"):
        make_two(tiny_sd1, embedding=str(other))
    with pytest.raises(FileNotFoundError, match='none'):
        make_two(tiny_sd1, embedding=str(tmp_path / 'none.pt'))


def written(folder, kind, rows):
    """A file with the word `<cat-toy>`, as other programs write it."""
    if kind == 'mmagic':
        table = 'text_encoder.model.text_model.embeddings.token_embedding'
        path = folder / 'iter_9.pth'
        state = {f'{table}.trainable_embeddings.<cat-toy>': rows}
        torch.save(dict(state_dict=state, meta=dict(iter=9)), path)
        return path
    suffix = {'diffusers': 'bin', 'kohya': 'safetensors'}.get(kind, 'pt')
    path = folder / f'<cat-toy>.{suffix}'
    word = '*' if kind == 'original' else '<cat-toy>'
    write_token_file(path, {word: rows}, kind)
    return path


def config_of(folder, **options):
    """A config of one word."""
    model = dict(
        type='mmhiper.TextualInversion',
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        placeholder_token='<cat-toy>',
        initialize_token='x',
    )
    return Config(dict(model={**model, **options}))


@pytest.mark.filterwarnings('ignore:The word:UserWarning')
@pytest.mark.parametrize('count', [1, 2])
@pytest.mark.parametrize(
    'kind', ['diffusers', 'a1111', 'kohya', 'original', 'mmagic']
)
def test_load_editor_reads_what_load_embeddings_reads(
    tiny_sd1, tmp_path, kind, count
):
    rows = torch.randn(count, 32, generator=torch.Generator().manual_seed(0))
    path = written(tmp_path, kind, rows)
    editor = load_editor(config_of(tiny_sd1), path)
    other = make(tiny_sd1, placeholder_token='<other>')
    names = read_token_file(path).placeholders
    other.load_embeddings(path, rename=dict.fromkeys(names, '<cat-toy>'))

    prompts = ['a <cat-toy> at night']
    with torch.no_grad():
        ours = editor.condition(prompts).tokens
        theirs = other.condition(prompts).tokens
    assert torch.equal(ours, theirs)
    assert editor.num_vectors_per_token == count


def test_load_editor_reads_words_for_sdxl(tiny_sdxl, tmp_path):
    source = make(tiny_sdxl, num_vectors_per_token=2)
    randomise(source)
    path = tmp_path / '<cat-toy>.safetensors'
    save_file(source.learned_state(), path)
    editor = load_editor(config_of(tiny_sdxl), path)
    assert torch.equal(editor.embedding.rows, source.embedding.rows)


def test_a_file_with_other_words_besides(tiny_sd1, tmp_path):
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    path = file_of(tmp_path, {'<dog>': rows[:2], '<cat-toy>': rows[2:]})
    editor = load_editor(config_of(tiny_sd1), path)
    assert editor.placeholders == ['<cat-toy>', '<dog>']
    plain = rows_over_letters(tiny_sd1, x=rows[2], y=rows[0], z=rows[1])
    with torch.no_grad():
        ours = editor.condition(['a <cat-toy>, <dog>']).tokens
    assert torch.equal(ours, plain.encode_text(['a x, y z']).tokens)


def test_files_that_do_not_fit_the_config(tiny_sd1, tmp_path):
    one = file_of(tmp_path, {'<dog>': torch.ones(1, 32)})
    with pytest.warns(UserWarning, match="'<dog>' of the file is called"):
        load_editor(config_of(tiny_sd1), one)
    with pytest.raises(ValueError, match="Wanted the words '<toy>', '<cat>'"):
        load_editor(config_of(tiny_sd1, placeholder_token=WORDS), one)
    wide = file_of(tmp_path, {'<cat-toy>': torch.ones(1, 64)}, 'w.safetensors')
    with pytest.raises(ValueError, match=r'does not belong[^$]*\(1, 64\)'):
        load_editor(config_of(tiny_sd1), wide)


def test_a_checkpoint_needs_no_file_that_it_started_from(tiny_sd1, tmp_path):
    path = file_of(tmp_path, {'<cat-toy>': torch.ones(1, 32)})
    config = config_of(tiny_sd1, embedding=str(path))
    editor = load_editor(config)
    assert torch.equal(editor.embedding.rows, torch.ones(1, 32))
    randomise(editor)
    torch.save(dict(state_dict=editor.state_dict()), tmp_path / 'a.pth')
    path.unlink()
    again = load_editor(config, tmp_path / 'a.pth')
    assert torch.equal(again.embedding.rows, editor.embedding.rows)
    assert 'embedding' in config.model  # which is the caller's
