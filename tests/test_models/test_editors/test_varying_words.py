"""Words with a vector per layer or per stage, and vectors of one norm."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from tiny import at_step, batch_of, make_word, picture
from tolerances import EXACT

from mmhiper.io import write_export
from mmhiper.models import Conditioning
from mmhiper.models.layered_text import cross_layers

pytestmark = pytest.mark.usefixtures('float64')
KINDS = ('ExtendedTextualInversion', 'ProSpect')
PROMPTS = ['a <cat-toy>', 'the <cat-toy> at night']


def make(folder, kind, **options):
    return make_word(folder, type=f'mmhiper.{kind}', **options)


def randomise(editor, seed=0):
    """Gives each vector a value of its own, which a file can keep."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in editor.parameters():
            shape, dtype = weight.shape, torch.float32
            weight.copy_(torch.randn(shape, generator=generator, dtype=dtype))


def with_prompts(count=1):
    data = batch_of([picture(i) for i in range(count)], list(range(count)))
    for sample in data['data_samples']:
        sample.set_metainfo(dict(prompts=PROMPTS))
    return data


def loss_of(editor, count=1, iteration=0):
    at_step(iteration)
    data = editor.data_preprocessor(with_prompts(count), True)
    loss, _ = editor.parse_losses(editor(**data, mode='loss'))
    return loss


def export(editor, path):
    write_export(path, editor.learned_state(), editor.export_metadata())


def group(editor, number, count=1):
    """An ordinary word with the vectors of one set."""
    one = make_word('', sd=editor.sd, num_vectors_per_token=count)
    with torch.no_grad():
        start = number * count
        rows = editor.embedding.rows[start : start + count]
        one.embedding.rows.copy_(rows)
    return one


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('count', [1, 2])
def test_it_starts_as_textual_inversion(tiny_sd1, kind, count):
    editor = make(tiny_sd1, kind, num_vectors_per_token=count)
    plain = make_word(tiny_sd1, num_vectors_per_token=count)

    groups = editor.num_groups
    assert editor.embedding.rows.shape == (groups * count, 32)
    torch.testing.assert_close(loss_of(editor, 2), loss_of(plain, 2), **EXACT)
    assert editor.vocabulary.count('a <cat-toy>') == 1 + count


@pytest.mark.parametrize('kind', KINDS)
def test_each_set_is_a_word_of_its_own(tiny_sd1, kind):
    editor = make(tiny_sd1, kind, num_vectors_per_token=2)
    randomise(editor)

    # (B, S, L, M, D) -> (B, G, M, D)
    texts = editor.condition(PROMPTS).tokens.flatten(1, 2)

    for number in range(editor.num_groups):
        one = group(editor, number, 2).condition(PROMPTS).tokens
        torch.testing.assert_close(texts[:, number], one, **EXACT)


def test_a_step_teaches_the_stage_of_its_timestep_alone(tiny_sd1):
    editor = make(tiny_sd1, 'ProSpect')
    stages = set()
    for iteration in range(8):
        editor.zero_grad()
        loss_of(editor, iteration=iteration).backward()
        moved = (editor.embedding.rows.grad != 0).any(1).nonzero().flatten()
        _, timesteps = editor._timesteps[-1]
        assert moved.tolist() == [9 - int(timesteps) // 100]
        stages.add(int(moved))
    assert len(stages) > 2


@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing_gives_the_same_gradient(tiny_sd1, kind):
    gradients = []
    for switch in (False, True):
        sd = dict(
            type='StableDiffusion',
            pretrained=str(tiny_sd1),
            gradient_checkpointing=switch,
        )
        editor = make(tiny_sd1, kind, sd=sd)
        randomise(editor)
        loss_of(editor, iteration=3).backward()
        gradients.append(editor.embedding.rows.grad)

    torch.testing.assert_close(*gradients, **EXACT)
    assert gradients[0].any()


@pytest.mark.parametrize(
    ('kind', 'name'),
    [('ExtendedTextualInversion', 'layers'), ('ProSpect', 'stages')],
)
def test_an_edit_takes_some_of_the_sets(tiny_sd1, kind, name):
    editor = make(tiny_sd1, kind)
    randomise(editor)
    groups = editor.num_groups
    learned = editor.condition(PROMPTS).tokens.flatten(1, 2)
    plain = editor.sd.encode_text(
        [p.replace('<cat-toy>', 'x') for p in PROMPTS]
    )

    some = editor.condition(PROMPTS, **{name: (1, 3)}).tokens.flatten(1, 2)

    for number in range(groups):
        wanted = learned[:, number] if number in (1, 2) else plain.tokens
        assert torch.equal(some[:, number], wanted)
    every = editor.condition(PROMPTS, **{name: (0, groups)})
    assert torch.equal(every.tokens.flatten(1, 2), learned)
    for wrong in [(2, 2), (-1, 2), (0, groups + 1), (0.5, 2), '01', 3]:
        with pytest.raises(ValueError, match=f'`{name}` must be a pair'):
            editor.condition(PROMPTS, **{name: wrong})


@pytest.mark.parametrize('kind', KINDS)
def test_pictures_are_drawn_and_files_come_and_go(tiny_sd1, kind, tmp_path):
    options = dict(
        num_inference_steps=2, show_progress=False, return_type='tensor'
    )
    editor = make(tiny_sd1, kind, num_vectors_per_token=2)
    before = editor.infer('a <cat-toy>', **options)['samples']
    randomise(editor)
    drawn = editor.infer('a <cat-toy>', **options)['samples']
    assert (drawn - before).abs().max() > 1e-6

    again = make(tiny_sd1, kind, num_vectors_per_token=2)
    again.load_state_dict(editor.state_dict())
    export(editor, tmp_path / 'word.safetensors')
    exported = make(tiny_sd1, kind)  # learns the number from the file
    exported.load_state_dict(editor.learned_state())

    for other in (again, exported):
        assert torch.equal(
            other.infer('a <cat-toy>', **options)['samples'], drawn
        )
    assert exported.num_vectors_per_token == 2
    # nobody takes its sets for the vectors of one long word
    with pytest.raises(ValueError, match=f"this export is '{kind}'"):
        make_word(tiny_sd1).load_embeddings(tmp_path / 'word.safetensors')


@pytest.mark.parametrize('kind', KINDS)
def test_a_loaded_word_is_the_same_everywhere(tiny_sd1, kind, tmp_path):
    other = make_word(tiny_sd1, placeholder_token='<other>')
    randomise(other, seed=5)
    export(other, tmp_path / 'other.safetensors')
    editor = make(tiny_sd1, kind)
    randomise(editor)
    learned = editor.condition(['a <cat-toy>']).tokens

    editor.load_embeddings(tmp_path / 'other.safetensors')

    torch.testing.assert_close(
        editor.condition(['a <cat-toy>']).tokens, learned, **EXACT
    )
    texts = editor.condition(['a <other>']).tokens.flatten(1, 2)
    plain = other.condition(['a <other>']).tokens
    torch.testing.assert_close(texts, plain[:, None].expand_as(texts), **EXACT)


@pytest.mark.parametrize('kind', KINDS)
def test_what_does_not_fit_is_refused(tiny_sd1, kind):
    editor = make(tiny_sd1, kind)
    with pytest.raises(ValueError, match='cannot become a plain pipeline'):
        editor.to_diffusers()
    with pytest.raises(ValueError, match='leave out `progressive_interval`'):
        make(tiny_sd1, kind, progressive_interval=5)
    rows = torch.zeros(editor.num_groups + 1, 32)
    with pytest.raises(ValueError, match=f'multiple of {editor.num_groups}'):
        editor.load_state_dict({'<cat-toy>': rows})


@pytest.mark.parametrize('count', [0, 1001])
def test_a_number_of_stages(tiny_sd1, count):
    with pytest.raises(ValueError, match=r'`num_stages` must be in \[1, 1000'):
        make(tiny_sd1, 'ProSpect', num_stages=count)


@pytest.mark.parametrize('kind', ['TextualInversion', *KINDS])
def test_xl_has_sets_for_both_text_encoders(tiny_sdxl, kind):
    editor = make(tiny_sdxl, kind, directional=True)
    loss_of(editor, 2).backward()

    assert editor.embedding.rows.grad.any()
    text = editor.condition(['a <cat-toy>'])
    assert text.pooled.shape[0] == 1
    layers = len(cross_layers(editor.sd.unet))
    assert text.tokens.shape[1:-2] in [(), (1, layers), (10, 1)]


# ------------------------------------------------------------- the direction
def norms_of(editor, rows):
    widths = [table.shape[1] for table in editor.sd.token_tables]
    return [part.norm(dim=1) for part in rows.split(widths, dim=1)]


@pytest.mark.parametrize('family', ['tiny_sd1', 'tiny_sdxl'])
def test_directional_vectors_keep_the_norm_of_the_vocabulary(family, request):
    folder = request.getfixturevalue(family)
    editor = make_word(folder, directional=True, num_vectors_per_token=2)
    medians = [
        table.double().norm(dim=1).median() for table in editor.sd.token_tables
    ]
    before = editor.embedding.rows_of('<cat-toy>').detach()
    optimizer = torch.optim.AdamW(editor.parameters(), lr=1e-2)
    for iteration in range(3):
        optimizer.zero_grad()
        loss_of(editor, iteration=iteration).backward()
        # of a vector's length nothing is learned
        raw = editor.embedding.rows
        for part, gradient in zip(
            norms_and_parts(editor, raw.detach()),
            norms_and_parts(editor, raw.grad),
            strict=True,
        ):
            along = (part * gradient).sum(1)
            torch.testing.assert_close(
                along, torch.zeros_like(along), rtol=0, atol=1e-12
            )
        optimizer.step()

    (rows,) = (
        editor.learned_state().values()
        if family == 'tiny_sd1'
        else [torch.cat(list(editor.learned_state().values()), 1)]
    )
    for found, median in zip(norms_of(editor, rows), medians, strict=True):
        torch.testing.assert_close(
            found, median.to(found).expand_as(found), **EXACT
        )
    assert (rows - before).abs().max() > 1e-3
    assert torch.equal(rows, editor.embedding.rows_of('<cat-toy>'))


def norms_and_parts(editor, rows):
    widths = [table.shape[1] for table in editor.sd.token_tables]
    return rows.split(widths, dim=1)


def test_a_directional_word_goes_on_where_it_was(tiny_sd1):
    editor = make_word(tiny_sd1, directional=True)
    randomise(editor)
    again = make_word(tiny_sd1, directional=True)
    again.load_state_dict(editor.state_dict())
    plain = make_word(tiny_sd1)
    plain.load_state_dict(editor.learned_state())

    sample = BaseDataElement(metainfo=dict(prompts=PROMPTS))
    wanted: Conditioning = editor.fixed_condition(sample)
    for other in (again, plain):
        assert torch.equal(other.fixed_condition(sample).tokens, wanted.tokens)
