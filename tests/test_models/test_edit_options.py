"""What an edit may be told, and which steps that means."""

import json
from fractions import Fraction

import pytest

from mmhiper.models.edit_options import (
    EditOptions,
    crossing_span,
    span_of,
    value_span,
)


# ---------------------------------------------------------------------- steps
@pytest.mark.parametrize(
    ('tau', 'steps', 'own', 'cross', 'values'),
    [
        (0, 30, 0, 0, 0),
        (1, 30, 30, 31, 30),
        (0.5, 30, 15, 15, 15),
        (0.6, 30, 18, 18, 18),
        (0.8, 30, 24, 24, 24),
        (0.98, 50, 49, 49, 49),
        (0.99, 50, 49, 50, 50),
        # 0.58 * 50 is 28.999999999999996 and 0.07 * 100 is
        # 7.000000000000001: cut, and rounded up
        (0.58, 50, 28, 29, 29),
        (0.07, 100, 7, 7, 8),
        # just below 1 / 3
        (1 / 3, 29, 9, 10, 10),
    ],
)
def test_how_many_steps_a_fraction_is(tau, steps, own, cross, values):
    assert span_of(tau, steps) == range(own)
    assert crossing_span(tau, steps) == range(cross)
    assert value_span(tau, steps) == range(values)


def test_the_steps_of_any_fraction_are_those_of_the_original():
    """Cut for attention, of one step more for cross-attention; values go on
    while a step is below the product: all in floating point."""
    for steps in range(1, 101):
        for percent in range(101):
            tau = percent / 100
            # the product as it is rounded, and then without rounding
            own = Fraction(tau * steps)
            cross = Fraction(tau * (steps + 1))
            for i in range(steps):
                assert (i in span_of(tau, steps)) == (i + 1 <= own)
                assert (i in crossing_span(tau, steps)) == (i + 1 <= cross)
                assert (i in value_span(tau, steps)) == (i < own)


def test_a_range_starts_as_another_ends():
    assert span_of((0.25, 0.58), 50) == range(12, 28)
    assert crossing_span([0.25, 0.58], 50) == range(12, 29)
    assert value_span((0.25, 0.58), 50) == range(13, 29)


# ---------------------------------------------------------------------- words
@pytest.mark.parametrize('name', ['blend_words', 'substruct_words'])
@pytest.mark.parametrize(
    ('given', 'pair'),
    [
        ('cat', (['cat'], ['cat'])),
        (2, ([2], [2])),
        (('cat', 'dog'), (['cat'], ['dog'])),
        ((2, 3), ([2], [3])),
        ([['a', 'cat'], 4], (['a', 'cat'], [4])),
        ((('cat',), ()), (['cat'], [])),
    ],
)
def test_words_of_both_prompts(name, given, pair):
    options = EditOptions(**{'blend_words': 'a', name: given})

    assert options.words_of_both(name) == pair
    assert EditOptions().words_of_both(name) is None


@pytest.mark.parametrize(
    'given',
    [{'cat': 2, 3: 0.5}, [('cat', 2), (3, 0.5)], [['cat', 2], [3, 0.5]]],
)
def test_words_with_a_value(given):
    for name in ('reweight', 'cross_replace'):
        options = EditOptions(**{name: {'cat': 0.1}})
        assert options.pairs(name) == [('cat', 0.1)]
    assert EditOptions(reweight=given).pairs('reweight') == [
        ('cat', 2),
        (3, 0.5),
    ]


def test_json_keeps_what_differs_from_the_defaults():
    options = EditOptions(
        align='official',
        tau_c=(0.1, 0.6),
        tau_s=0.6,
        blend_words=('cat', ('dog', 3)),
        substruct_words=2,
        thresholds=(0.3, 0.5),
        reweight={'hat': 2.0},
        cross_replace={3: (0, 0.5), 'hat': 0.2},
    )
    plain = options.plain()

    assert json.loads(json.dumps(plain)) == plain
    assert 'tau_s' not in plain and 'tau_v' not in plain
    again = EditOptions(**plain)
    assert again.plain() == plain
    for name in ('reweight', 'cross_replace'):
        assert [[w, list(v) if isinstance(v, tuple) else v]
                for w, v in options.pairs(name)] == [
            [w, v] for w, v in again.pairs(name)
        ]  # fmt: skip
    for name in ('blend_words', 'substruct_words'):
        assert again.words_of_both(name) == options.words_of_both(name)
    assert EditOptions().plain() == {}


# --------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(tau_c=1.1), r'`tau_c`.*\[0, 1\], but got 1.1'),
        (dict(tau_u=-0.1), r'`tau_u`.*got -0.1'),
        (dict(tau_v=2), '`tau_v`'),
        (dict(tau_v='half'), "`tau_v`.*got 'half'"),
        (dict(tau_v=True), '`tau_v`.*got True'),
        (dict(tau_s=float('nan')), '`tau_s`'),
        (dict(tau_s=(0.1, 1.2)), '`tau_s`.*got 1.2'),
        (dict(tau_s=(0.6, 0.1)), r'`tau_s`.*\(start, end\).*\(0.6, 0.1\)'),
        (dict(tau_s=[0.1, 0.2, 0.3]), r'`tau_s`.*\(start, end\)'),
        (dict(cross_replace={'dog': 7}), r"cross_replace\['dog'\].*got 7"),
        (dict(cross_replace={'dog': (1, 0)}), r"cross_replace\['dog'\].*fall"),
        (dict(cross_replace=0.5), '`cross_replace`.*{word: value}.*got 0.5'),
        (dict(reweight=[('dog',), (2,)]), '`reweight`.*got'),
        (dict(reweight='dog'), "`reweight`.*got 'dog'"),
        (dict(edit_type='swap'), r"\['replacement', 'refinement'\].*'swap'"),
        (dict(align='tokens'), r"`align`.*\['words', 'official'\].*'tokens'"),
        (dict(reweight={'dog': float('inf')}), "`reweight.*'dog'"),
        (dict(reweight={'dog': 'much'}), "`reweight.*'dog'.*got 'much'"),
        (dict(blend_words=('a', 'b', 'c')), '`blend_words`.*a pair'),
        (dict(blend_words=('a', 1.5)), '`blend_words`.*a pair'),
        (dict(substruct_words='a'), '`blend_words`, which are not given'),
        (dict(thresholds=0.3), '`thresholds` must be a pair'),
        (dict(thresholds=(0.3, 3)), '`thresholds`.*got 3'),
        (dict(start_blend=(0, 1)), '`start_blend`'),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        EditOptions(**options)
