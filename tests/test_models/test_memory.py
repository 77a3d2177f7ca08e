"""Pictures are drawn as many at a time as there is room, and look the same."""

from __future__ import annotations

import pytest
import torch
from tiny import make_hiper, make_word, randomise
from tolerances import EXACT

from mmhiper.inferencer import EditInferencer
from mmhiper.models import memory
from mmhiper.models.drawing import latent_shape
from mmhiper.models.guidance import Guidance
from mmhiper.models.memory import PeakBytes, bytes_per_picture
from mmhiper.utils import devices

QUICK = dict(num_inference_steps=2, show_progress=False, return_type='tensor')


@pytest.fixture
def sizes(monkeypatch):
    """Has an editor note the batches of its U-Net."""

    def watch(editor) -> list[int]:
        seen: list[int] = []
        editor.sd.unet.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(
                len(args[0] if args else kwargs['hidden_states'])
            ),
            with_kwargs=True,
        )
        return seen

    return watch


def with_free(monkeypatch, pictures: float | None, editor) -> None:
    """Leaves room for so many guided pictures."""
    free = None
    if pictures is not None:
        text = editor.sd.encode_text(['a dog'])
        each = bytes_per_picture(editor.sd, latent_shape(editor.sd), text)
        free = int(pictures * 2 * each / memory.SHARE) + 1
    monkeypatch.setattr(memory, 'free_memory', lambda device: free)


# ------------------------------------------------------------------- counting
def test_live_bytes_are_counted():
    with PeakBytes() as counted:
        first = torch.empty(1000)  # 4000 bytes
        second = first * 2
        view = second.view(10, 100)[1:]  # of the same memory
        del first
        second.add_(1)
        third = torch.empty(500)
        del second
    assert counted.peak == 8000
    assert view.shape == (9, 100) and third.shape == (500,)


def test_a_pass_is_counted_without_being_made(tiny_folder):
    """As large as a real one, and no weight is moved."""
    sd = make_hiper(tiny_folder).sd
    shape = latent_shape(sd)
    text = sd.encode_text(['a dog'])
    found = bytes_per_picture(sd, shape, text)

    with torch.no_grad(), PeakBytes() as counted:
        sd.predict(torch.zeros(3, *shape), torch.tensor(1), text[[0, 0, 0]])
    # attention may be fused on the CPU, and is spelled out on the meta device
    assert 0.5 * counted.peak / 3 < found
    assert sd.device.type == 'cpu'
    larger = (shape[0], 2 * shape[1], 2 * shape[2])
    assert bytes_per_picture(sd, larger, text) > 3 * found


def test_free_memory_of_this_machine():
    free = devices.free_memory(torch.device('cpu'))
    assert free is None or 0 < free < 2**50
    assert devices.free_memory(torch.device('meta')) is None


# --------------------------------------------------------------------- drawing
@pytest.mark.parametrize(
    ('room', 'batch_size', 'expected'),
    [
        (9, None, [5]),
        (None, None, [5]),  # not known
        (2, None, [2, 2, 1]),
        (0.1, None, [1] * 5),  # at least one
        (1, 4, [4, 1]),  # a number wins
    ],
)
def test_batches_fit_into_what_is_free(
    tiny_sd1, monkeypatch, sizes, room, batch_size, expected
):
    editor = make_hiper(tiny_sd1)
    with_free(monkeypatch, room, editor)
    seen = sizes(editor)
    drawn = editor.infer(
        'a cat', num_images_per_prompt=5, batch_size=batch_size, **QUICK
    )['samples']

    assert len(drawn) == 5
    # both halves of guidance, twice
    assert seen == [2 * size for size in expected for _ in range(2)]


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('make', [make_hiper, make_word])
def test_a_batch_changes_no_picture(tiny_folder, make):
    editor = make(tiny_folder)
    randomise(editor)
    prompts = ['a <cat-toy>', 'x'] if make is make_word else ['a cat', 'x']
    options = dict(num_images_per_prompt=3, seed=4, **QUICK)
    whole = editor.infer(prompts, batch_size=6, **options)['samples']
    parts = editor.infer(prompts, batch_size=4, **options)['samples']
    torch.testing.assert_close(parts, whole, **EXACT)

    one = dict(options, num_images_per_prompt=1)
    noise = torch.randn(2, *latent_shape(editor.sd))
    whole = editor.infer(prompts, batch_size=2, latents=noise, **one)
    parts = editor.infer(prompts, batch_size=1, latents=noise, **one)
    torch.testing.assert_close(parts['samples'], whole['samples'], **EXACT)


def test_one_generator_draws_all_at_once(tiny_sd1, monkeypatch, sizes):
    editor = make_hiper(tiny_sd1)
    with_free(monkeypatch, 1, editor)
    seen = sizes(editor)
    options = dict(QUICK, num_images_per_prompt=3, eta=0.5)
    generator = torch.Generator().manual_seed(0)
    editor.infer('a cat', generator=generator, **options)
    assert seen == [6, 6]

    with pytest.raises(ValueError, match='`generator` must be a list of one'):
        editor.infer('a cat', generator=generator, batch_size=2, **options)
    with pytest.raises(ValueError, match='one for each of 3 pictures'):
        editor.infer('a cat', generator=[generator], **options)
    with pytest.raises(ValueError, match='`batch_size` must be at least 1'):
        editor.infer('a cat', batch_size=0, **options)


def test_what_an_inferencer_is_told_is_done(tiny_sd1, monkeypatch, sizes):
    editor = make_hiper(tiny_sd1)
    with_free(monkeypatch, 1, editor)
    seen = sizes(editor)
    EditInferencer(editor)(
        'a cat', num_images=3, batch_size=2, show_progress=False,
        num_inference_steps=1,
    )  # fmt: skip
    assert seen == [4, 2]


# ------------------------------------------------------- what prompts share
@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('negative', [None, 'x', ['x', 'x']])
def test_a_shared_negative_is_encoded_once(tiny_folder, negative):
    editor = make_hiper(tiny_folder)
    rows: list[int] = []
    editor.sd.text_encoder.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0]))
    )
    found = editor.condition_pair(['a cat', 'a dog'], negative)[1]

    assert sorted(rows) == [1, 2]  # it, and the two prompts
    if negative is None:
        wanted = editor.sd.encode_nothing(2)
    else:
        wanted = editor.sd.encode_text(['x', 'x'])
    torch.testing.assert_close(found.tokens, wanted.tokens, **EXACT)


def test_guidance_of_none_takes_one_pass(tiny_sd1, monkeypatch, sizes):
    """So a distilled model draws twice as many in the same room."""
    editor = make_hiper(tiny_sd1)
    text = editor.sd.encode_text(['a dog'] * 8)
    each = bytes_per_picture(editor.sd, latent_shape(editor.sd), text[:1])
    monkeypatch.setattr(
        memory, 'free_memory', lambda device: int(4 * each / memory.SHARE) + 1
    )
    found = [
        memory.pictures_at_once(
            editor.sd, latent_shape(editor.sd), text, Guidance(scale)
        )
        for scale in (7.5, 1.0)
    ]
    assert found == [2, 4]
