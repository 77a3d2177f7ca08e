"""A compiled U-Net computes the same, by as many programs as it has blocks."""

from __future__ import annotations

import pytest
import torch
from inversion import with_image_encoder
from tiny import FAMILIES, at_step, batch_of, make_hiper, picture, train
from tolerances import EXACT
from torch._dynamo.utils import counters

from mmhiper.models import StableDiffusion
from mmhiper.models.compiling import blocks_of
from mmhiper.registry import MODELS

QUICK = dict(num_inference_steps=2, show_progress=False, return_type='tensor')


@pytest.fixture(autouse=True)
def fresh():
    """No programs of other tests."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(folder, backend='eager', **options):
    """The editor on a compiled model."""
    sd = dict(type='StableDiffusion', pretrained=str(folder), compile=backend)
    return make_hiper(folder, sd=sd, **options)


def programs() -> int:
    """How many have been made."""
    assert not counters['graph_break'], counters['graph_break']
    return counters['stats']['unique_graphs']


@pytest.fixture(params=['sd1', 'sd2', 'sdxl', 'sd35'])
def folder(request):
    """A model of each family."""
    return request.getfixturevalue(f'tiny_{request.param}')


@pytest.mark.usefixtures('float64')
def test_numbers_stay(folder):
    plain, other = make_hiper(folder), compiled(folder, 'aot_eager')
    assert plain.sd.state_dict().keys() == other.sd.state_dict().keys()
    tails = [train(editor, [picture(0)], 2) for editor in (plain, other)]
    torch.testing.assert_close(*tails, **EXACT)
    drawn = [
        editor.infer('a cat', **QUICK)['samples'] for editor in (plain, other)
    ]
    torch.testing.assert_close(*drawn, **EXACT)
    assert programs() > 0


def test_no_timestep_and_no_text_makes_a_program(folder):
    editor = compiled(folder)
    train(editor, [picture(0)], 1)
    first = programs()
    assert 0 < first <= len(blocks_of(editor.sd.unet))

    seen = set()
    for iteration in range(1, 6):  # other timesteps
        train(editor, [picture(0)], 1, first=iteration)
        seen.add(float(editor._timesteps[-1][1]))
    assert len(seen) == 5
    train(compiled(folder, source_text='quite another text'), [picture(1)], 1)
    assert programs() == first

    # drawing is without gradients, and in another layout
    editor.infer('a cat', **QUICK)
    drawing = programs()
    assert drawing <= 2 * len(blocks_of(editor.sd.unet))
    editor.infer('a dog', seed=7, **dict(QUICK, num_inference_steps=5))
    train(editor, [picture(0)], 1)
    assert programs() == drawing


def test_blocks_of_one_size_are_one_program(tiny_sd35):
    """Both blocks of this transformer, but the last one, are alike."""
    sd = StableDiffusion(str(tiny_sd35), compile='eager')
    text = sd.encode_text(['a dog'])
    with torch.no_grad():
        sd.predict(torch.zeros(1, 16, 8, 8), torch.tensor(9.0), text)
    assert len(blocks_of(sd.unet)) >= programs() > 0


def test_checkpointing_and_several_draws_go_together(tiny_sd1):
    sd = dict(
        type='StableDiffusion',
        pretrained=str(tiny_sd1),
        compile='aot_eager',
        gradient_checkpointing=True,
    )
    editor = make_hiper(tiny_sd1, sd=sd, draws_per_step=2)
    before = editor.embedding.tail.detach().clone()
    assert not torch.equal(train(editor, [picture(0)], 2), before)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('kind', ['NullTextInversion', 'StyleDiffusion'])
def test_where_attention_is_controlled_nothing_is_compiled(
    tiny_sd1, tmp_path, kind
):
    width = FAMILIES['sd1'].width
    folder = with_image_encoder(tiny_sd1, tmp_path / 'model', width)
    drawn = []
    for backend in (False, 'eager'):
        editor = MODELS.build(
            dict(
                type=f'mmhiper.{kind}',
                sd=dict(
                    type='StableDiffusion',
                    pretrained=str(folder),
                    compile=backend,
                ),
                source_text='a dog',
                target_text='a cat',
                num_steps=2,
                num_inner_steps=1,
            )
        )
        optimizer = torch.optim.Adam(editor.parameters(), lr=1e-2)
        for iteration in range(2):
            at_step(iteration)
            data = editor.data_preprocessor(batch_of([picture(0)], [0]), True)
            loss, _ = editor.parse_losses(editor(**data, mode='loss'))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        drawn.append(
            editor.infer('a cat', show_progress=False, return_type='tensor')
        )
    torch.testing.assert_close(
        drawn[0]['samples'], drawn[1]['samples'], **EXACT
    )


def test_the_default_compiles_nothing(tiny_sd1):
    train(make_hiper(tiny_sd1), [picture(0)], 1)
    assert programs() == 0


def test_a_backend_that_is_none_is_told(tiny_sd1):
    with pytest.raises(ValueError, match=r"`compile` must be True.*'none'"):
        compiled(tiny_sd1, 'none')


def test_a_record_does_not_ask_for_it(tiny_sd1):
    assert 'compile' not in compiled(tiny_sd1).export_metadata()['sd']
