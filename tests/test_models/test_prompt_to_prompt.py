"""Prompt-to-prompt against its formulas."""

import pytest
import torch
from tolerances import EXACT

from mmhiper.models.attention import Layer
from mmhiper.models.edit_options import EditOptions
from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_to_prompt import LocalBlend, PromptToPrompt

pytestmark = pytest.mark.usefixtures('float64')

M = 12
CROSS = Layer('cross', 'up', True, 4, 8)
CPU = torch.device('cpu')


def parse(text: str) -> Prompt:
    return Prompt.parse(text, lambda word: [ord(c) for c in word], M)


def control(source: str, target: str, steps: int = 10, **options):
    return PromptToPrompt(
        parse(source), parse(target), EditOptions(**options), steps, CPU
    )


def random_maps(seed: int = 0) -> torch.Tensor:
    """Of four rows, two heads, 4x4 pixels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 2, 16, M, generator=generator)


def test_replacement_gives_the_target_the_maps_of_the_source():
    maps = random_maps()
    swap = control('a cat', 'a dog', edit_type='replacement')

    new = swap.see(CROSS, maps)

    assert torch.equal(new[:3], maps[:3])
    torch.testing.assert_close(new[3], maps[2], **EXACT)


def test_refinement_keeps_the_attention_of_what_is_new():
    maps = random_maps()
    refine = control('a cat', 'a big cat')

    new = refine.see(CROSS, maps)

    # start a c a t end ... -> start a b i g c a t end ...
    expected = maps[2].clone()
    expected[..., 5:] = maps[2][..., 2 : M - 3]
    expected[..., 2:5] = maps[3][..., 2:5]
    torch.testing.assert_close(new[3], expected, **EXACT)
    assert torch.equal(new[:3], maps[:3])


def test_reweighting_multiplies_what_was_aligned():
    maps = random_maps()
    plain = control('a cat', 'a big cat')
    louder = control('a cat', 'a big cat', reweight={'big': 3, 'cat': -2})

    expected = plain.see(CROSS, maps)[3].clone()
    expected[..., 2:5] *= 3
    expected[..., 5:8] *= -2
    torch.testing.assert_close(louder.see(CROSS, maps)[3], expected, **EXACT)


def test_words_have_schedules_of_their_own():
    maps = random_maps()
    edit = control(
        'a cat',
        'a dog',
        edit_type='replacement',
        tau_c=0.6,
        cross_replace={'dog': 0.2},
    )

    edit.step = 2  # the third: 'dog' is free by now
    expected = maps[2].clone()
    expected[..., 2:5] = maps[3][..., 2:5]
    torch.testing.assert_close(edit.see(CROSS, maps)[3], expected, **EXACT)
    edit.step = 5
    assert edit.wants_maps(CROSS)
    edit.step = 6
    assert not edit.wants_maps(CROSS)


def test_attention_is_replaced_in_a_range_of_steps():
    edit = control(
        'a cat', 'a dog', tau_c=(0.2, 0.4), cross_replace={'dog': (0.6, 0.9)},
        tau_s=(0.1, 0.2), tau_u=(0.2, 0.3),
    )  # fmt: skip
    wanted, rows = [], []
    for edit.step in range(10):
        wanted.append(edit.wants_maps(CROSS))
        rows.append(edit.borrow(Layer('self', 'up', False, 4, 8)))

    # of eleven: from 2.2 to 4.4, and from 6.6 to 9.9
    assert [i for i, each in enumerate(wanted) if each] == [2, 3, 6, 7, 8]
    assert rows[:3] == [None, [0, 1, 2, 2], [0, 0, 2, 3]]
    assert not any(rows[3:])


def test_the_official_alignment_can_be_chosen():
    maps = random_maps()
    taller = control('a cat c', 'a giraf c', align='official')
    ours = control('a cat c', 'a giraf c')

    # start a c a t c end ... -> start a g i r a f c end ...
    assert torch.equal(ours.see(CROSS, maps)[3][..., 7], maps[2][..., 5])
    assert torch.equal(taller.see(CROSS, maps)[3][..., 7], maps[2][..., 7])
    added = control(
        'a cat', 'a big cat', edit_type='refinement', align='official'
    )
    # the second end mark: at 6 of the source, at 9 of the target
    assert torch.equal(added.see(CROSS, maps)[3][..., 9], maps[2][..., 9])


def test_words_may_be_places():
    maps = random_maps()
    named, placed = (
        control('a cat', 'a dog', tau_c=0, cross_replace={word: 1},
                reweight={word: 3})
        for word in ('dog', 1)
    )  # fmt: skip

    assert torch.equal(named.see(CROSS, maps), placed.see(CROSS, maps))


@pytest.mark.parametrize(
    ('step', 'rows'),
    [(0, [0, 0, 2, 2]), (4, [0, 0, 2, 2]), (5, [0, 1, 2, 2]), (6, None)],
)
def test_self_attention_is_borrowed_for_its_fractions(step, rows):
    edit = control('a cat', 'a dog', tau_s=0.6, tau_u=0.5)
    edit.step = step

    assert edit.borrow(Layer('self', 'up', False, 32, 64)) == rows
    assert edit.borrow(Layer('self', 'up', False, 64, 64)) is None


def test_with_all_fractions_zero_nothing_happens():
    edit = control('a cat', 'a dog', tau_c=0, tau_s=0, tau_u=0)

    assert not edit.wants_maps(CROSS)
    assert edit.borrow(Layer('self', 'up', False, 4, 8)) is None


def blended(done: int, maps: torch.Tensor, **options) -> torch.Tensor:
    """Where an edit of ones differs from a source of zeros, (8, 8)."""
    blend = LocalBlend(
        parse('a cat'),
        parse('a dog'),
        EditOptions(**options),
        [CROSS],
        10,
        CPU,
    )
    blend.maps.see(CROSS, maps)
    latents = torch.stack([torch.zeros(4, 8, 8), torch.ones(4, 8, 8)])
    blend(done, latents)
    assert not latents[0].any()
    return latents[1].all(0)


def places(*corners: tuple[int, int, int]) -> torch.Tensor:
    """Squares of (8, 8): their first row, first column and side."""
    where = torch.zeros(8, 8, dtype=torch.bool)
    for row, column, side in corners:
        where[row : row + side, column : column + side] = True
    return where


def test_a_local_blend_keeps_the_rest_of_the_source():
    maps = torch.zeros(4, 2, 16, M)
    maps[2:, :, 0, 2:5] = 1  # top left
    maps[:2, :, 15, 2:5] = 9  # unconditional: must not count
    words = dict(blend_words=('cat', 'dog'))

    assert blended(2, maps, **words).all()  # 20 % of the steps
    # 2x2 of 4x4: the place and its neighbours
    assert torch.equal(blended(3, maps, **words), places((0, 0, 4)))
    assert torch.equal(
        blended(1, maps, start_blend=0, **words), places((0, 0, 4))
    )
    # 0.29 * 10 steps are two
    assert blended(2, maps, start_blend=0.29, **words).all()
    assert not blended(3, maps, start_blend=0.29, **words).all()


def test_a_local_blend_has_thresholds_and_takes_places_out():
    maps = torch.zeros(4, 2, 16, M)
    maps[2, :, 0, 2:5] = 1.0  # 'cat' at the top left
    maps[3, :, 15, 2:5] = 1.0  # 'dog' at the bottom right
    maps[2:, :, 3, 2:5] = 0.5  # both a little at the top right
    maps[2, :, 0, 1] = 1.0  # 'a' in the source, at the top left
    maps[3, :, 15, 1] = 0.4  # and in the target, at the bottom right,
    maps[3, :, 12, 1] = 1.0  # where it is elsewhere in the first place
    words = dict(blend_words=('cat', 'dog'))
    both = [(0, 0, 4), (4, 4, 4)]

    assert torch.equal(blended(3, maps, **words), places(*both, (0, 4, 4)))
    assert torch.equal(
        blended(3, maps, thresholds=(0.5, 0.3), **words), places(*both)
    )
    # places that are taken out have no neighbours
    out = ~places((0, 0, 2), (6, 6, 2))
    assert torch.equal(
        blended(3, maps, thresholds=(0.5, 0.3), substruct_words='a', **words),
        places(*both) & out,
    )
    assert torch.equal(
        blended(3, maps, thresholds=(0.5, 0.4), substruct_words=(0, ()),
                **words),
        places(*both) & ~places((0, 0, 2)),
    )  # fmt: skip


def test_reweighting_that_would_touch_nothing():
    with pytest.raises(ValueError, match='raise `tau_c`'):
        control('a cat', 'a dog', tau_c=0, reweight={'dog': 2})
    control('a cat', 'a dog', tau_c=0, cross_replace={'dog': 1},
            reweight={'dog': 2})  # fmt: skip
