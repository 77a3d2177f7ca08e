"""Prompt-to-prompt against its formulas."""

import pytest
import torch

from mmhiper.models.attention import Layer
from mmhiper.models.edit_options import EditOptions
from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_to_prompt import LocalBlend, PromptToPrompt

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
    torch.testing.assert_close(new[3], maps[2])


def test_refinement_keeps_the_attention_of_what_is_new():
    maps = random_maps()
    refine = control('a cat', 'a big cat')

    new = refine.see(CROSS, maps)

    # start a c a t end ... -> start a b i g c a t end ...
    expected = maps[2].clone()
    expected[..., 5:] = maps[2][..., 2 : M - 3]
    expected[..., 2:5] = maps[3][..., 2:5]
    torch.testing.assert_close(new[3], expected)
    assert torch.equal(new[:3], maps[:3])


def test_reweighting_multiplies_what_was_aligned():
    maps = random_maps()
    plain = control('a cat', 'a big cat')
    louder = control('a cat', 'a big cat', reweight={'big': 3, 'cat': -2})

    expected = plain.see(CROSS, maps)[3].clone()
    expected[..., 2:5] *= 3
    expected[..., 5:8] *= -2
    torch.testing.assert_close(louder.see(CROSS, maps)[3], expected)


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
    torch.testing.assert_close(edit.see(CROSS, maps)[3], expected)
    edit.step = 5
    assert edit.wants_maps(CROSS)
    edit.step = 6
    assert not edit.wants_maps(CROSS)


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


def test_a_local_blend_keeps_the_rest_of_the_source():
    blend = LocalBlend(
        parse('a cat'), parse('a dog'), (['cat'], ['dog']), [CROSS], 10, CPU
    )
    maps = torch.zeros(4, 2, 16, M)
    maps[2:, :, 0, 2:5] = 1  # top left
    maps[:2, :, 15, 2:5] = 9  # unconditional: must not count
    blend.maps.see(CROSS, maps)
    source, target = torch.zeros(4, 8, 8), torch.ones(4, 8, 8)

    early = torch.stack([source, target])
    blend(2, early)  # 20 % of the steps
    late = torch.stack([source, target])
    blend(3, late)

    assert torch.equal(early[1], target)
    expected = torch.zeros(4, 8, 8)
    expected[:, :4, :4] = 1  # 2x2 of 4x4: the place and its neighbours
    assert torch.equal(late[1], expected)
    assert torch.equal(late[0], source)


@pytest.mark.parametrize(
    ('given', 'pair'),
    [
        (None, None),
        ('cat', (['cat'], ['cat'])),
        (('cat', 'dog'), (['cat'], ['dog'])),
        ([['a', 'cat'], 'dog'], (['a', 'cat'], ['dog'])),
    ],
)
def test_words_to_blend(given, pair):
    assert EditOptions(blend_words=given).words_to_blend() == pair


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(tau_c=1.1), r'`tau_c`.*\[0, 1\], but got 1.1'),
        (dict(tau_u=-0.1), r'`tau_u`.*got -0.1'),
        (dict(tau_v=2), '`tau_v`'),
        (dict(tau_s=float('nan')), '`tau_s`'),
        (dict(cross_replace={'dog': 7}), r"cross_replace\['dog'\].*got 7"),
        (dict(edit_type='swap'), r"\['replacement', 'refinement'\].*'swap'"),
        (dict(reweight={'dog': float('inf')}), "`reweight.*'dog'"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        EditOptions(**options)


def test_three_lists_of_words_to_blend():
    with pytest.raises(ValueError, match='a pair'):
        EditOptions(blend_words=('a', 'b', 'c')).words_to_blend()


def test_reweighting_that_would_touch_nothing():
    with pytest.raises(ValueError, match='raise `tau_c`'):
        control('a cat', 'a dog', tau_c=0, reweight={'dog': 2})
    control('a cat', 'a dog', tau_c=0, cross_replace={'dog': 1},
            reweight={'dog': 2})  # fmt: skip
