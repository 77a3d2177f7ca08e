"""Mappers, equalisers and schedules on prompts made by hand."""

import itertools

import pytest
import torch
from tolerances import EXACT

from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_alignment import (
    align_refinement,
    align_refinement_officially,
    align_replacement,
    align_replacement_officially,
    equaliser,
    replacement_schedule,
)

pytestmark = pytest.mark.usefixtures('float64')

M = 12


def parse(text: str) -> Prompt:
    """One token per two letters: 'cat' has two, 'a' one."""

    def tokenize(word: str) -> list[int]:
        pairs = [word[i : i + 2] for i in range(0, len(word), 2)]
        return [int.from_bytes(pair.encode(), 'big') for pair in pairs]

    return Prompt.parse(text, tokenize, M)


def one_hot_columns(sources: list[int]) -> torch.Tensor:
    """A mapper that takes each target position from one source position."""
    mapper = torch.zeros(M, M)
    for target, source in enumerate(sources):
        if source >= 0:
            mapper[source, target] = 1
    return mapper


# ---------------------------------------------------------------- replacement
def test_the_same_prompt_is_the_identity():
    prompt = parse('a black cat')

    for align in (align_replacement, align_refinement):
        aligned = align(prompt, prompt)
        assert torch.equal(aligned.mapper, torch.eye(M))
        assert not aligned.fresh.any()


def test_replacement_by_a_word_of_as_many_tokens():
    aligned = align_replacement(parse('a cat sits'), parse('a dog sits'))

    assert torch.equal(aligned.mapper, torch.eye(M))
    assert not aligned.fresh.any()


def test_replacement_by_a_longer_word():
    # start a ca t si ts end ... -> start a ti ge rs si ts end ...
    aligned = align_replacement(parse('a cat sits'), parse('a tigers sits'))

    expected = one_hot_columns([0, 1, -1, -1, -1, 4, 5, 6, 7, 8, 9, 10])
    expected[2:4, 2:5] = 1 / 3
    torch.testing.assert_close(aligned.mapper, expected, **EXACT)


def test_replacement_by_a_shorter_word():
    # start a ti ge rs si ts end ... -> start a ox si ts end ...
    aligned = align_replacement(parse('a tigers sits'), parse('a ox sits'))

    expected = one_hot_columns([0, 1, -1, 5, 6, 7, 8, 9, 10, 11, 11, 11])
    expected[2:5, 2] = 1
    torch.testing.assert_close(aligned.mapper, expected, **EXACT)


@pytest.mark.parametrize(
    ('source', 'target', 'sources', 'blocks'),
    [
        # start a ca t sits end ..: behind 'tigers' each to its own position
        (
            'a cat sits',
            'a tigers sits',
            [0, 1, -1, -1, -1, 5, 6, 7, 8, 9, 10, 11],
            [((2, 4), (2, 5), 1 / 3)],
        ),
        # the other way round: the last mark is left without attention
        (
            'a tigers sits',
            'a cat sits',
            [0, 1, -1, -1, 4, 5, 6, 7, 8, 9, 10, -1],
            [((2, 5), (2, 4), 1 / 2)],
        ),
        # 'is' stands in front of the last word that differs: it moves
        (
            'a cat is at sea',
            'a ox is by sea',
            [0, 1, -1, 4, -1, 5, 6, 7, 8, 9, 10, -1],
            [((2, 4), (2, 3), 1), ((5, 6), (4, 5), 1)],
        ),
        # two that cancel each other
        (
            'a cat ox',
            'a ox cat',
            [0, 1, -1, -1, -1, 5, 6, 7, 8, 9, 10, 11],
            [((2, 4), (2, 3), 1), ((4, 5), (3, 5), 1 / 2)],
        ),
        # words alone decide, as they are written
        (
            'a cat Ox sits',
            'a ox ox sits',
            [0, 1, -1, -1, 4, 5, 6, 7, 8, 9, 10, -1],
            [((2, 4), (2, 3), 1), ((4, 5), (3, 4), 1)],
        ),
    ],
)
def test_the_official_replacement_keeps_to_positions(
    source, target, sources, blocks
):
    aligned = align_replacement_officially(parse(source), parse(target))

    expected = one_hot_columns(sources)
    for old, new, share in blocks:
        expected[slice(*old), slice(*new)] = share
    torch.testing.assert_close(aligned.mapper, expected)
    assert not aligned.fresh.any()


def test_with_as_many_tokens_both_replacements_agree():
    source, target = parse('a cat at sea'), parse('a dog by sea')
    for ours, theirs in (
        (align_replacement, align_replacement_officially),
        (align_refinement, align_refinement_officially),
    ):
        one, other = ours(source, target), theirs(source, target)
        assert torch.equal(one.mapper, other.mapper)
        assert torch.equal(one.fresh, other.fresh)


def test_a_word_hands_on_all_its_attention():
    maps = torch.rand(6, M, generator=torch.Generator().manual_seed(0))
    source = parse('a cat sits')

    for text in ('a tigers sits', 'a ox sits', 'the cat naps'):
        target = parse(text)
        moved = maps @ align_replacement(source, target).mapper
        for old, new in zip(source.spans, target.spans, strict=True):
            torch.testing.assert_close(
                moved[:, list(new)].sum(1),
                maps[:, list(old)].sum(1),
                **EXACT,
            )


@pytest.mark.parametrize(
    'align', [align_replacement, align_replacement_officially]
)
def test_replacement_needs_as_many_words(align):
    with pytest.raises(ValueError, match=r"has 2 and .* has 3.*'refinement'"):
        align(parse('a cat'), parse('a black cat'))


# ----------------------------------------------------------------- refinement
def test_refinement_by_new_words():
    # start a ca t end ... -> start a bl ac k ca t at sea ...
    aligned = align_refinement(parse('a cat'), parse('a black cat at'))

    sources = [0, 1, -1, -1, -1, 2, 3, -1, 4, 5, 6, 7]
    assert torch.equal(aligned.mapper, one_hot_columns(sources))
    assert aligned.fresh.nonzero().flatten().tolist() == [2, 3, 4, 7]


def test_refinement_by_another_word():
    aligned = align_refinement(parse('a cat sits'), parse('a ox sits'))

    sources = [0, 1, -1, 4, 5, 6, 7, 8, 9, 10, 11, 11]
    assert torch.equal(aligned.mapper, one_hot_columns(sources))
    assert aligned.fresh.nonzero().flatten().tolist() == [2]


def test_refinement_finds_the_longest_alignment():
    # greedy matching from the left would take 'a' of 'a b' and lose 'b c'
    aligned = align_refinement(parse('a b c d'), parse('b c a d'))

    assert aligned.fresh.nonzero().flatten().tolist() == [3]
    assert [aligned.mapper[:, j].argmax().item() for j in (1, 2, 4)] == [
        2, 3, 4
    ]  # fmt: skip


def common_subsequences(old, new, length):
    """All pairs of rising indices with equal tokens, of a length."""
    for i in itertools.combinations(range(len(old)), length):
        for j in itertools.combinations(range(len(new)), length):
            if all(old[a] == new[b] for a, b in zip(i, j, strict=True)):
                yield list(zip(i, j, strict=True))


def tied_prompts():
    """Pairs of prompts of few words, which fit in many ways."""
    texts = [
        ' '.join(words)
        for count in (1, 2, 3, 4)
        for words in itertools.product('ab', repeat=count)
    ] + ['c a b', 'a c a', 'b c c a']
    return itertools.product(texts, texts)


def test_of_equal_alignments_refinement_takes_that_of_the_original():
    """From the back: as far in front as can be, first in the target."""
    for old, new in tied_prompts():
        x, y = old.split(), new.split()
        found = []
        for length in range(min(len(x), len(y)) + 1):
            found = list(common_subsequences(x, y, length)) or found
        chosen = min(found, key=lambda p: [(j, i) for i, j in p[::-1]])

        mapper = align_refinement(parse(old), parse(new)).mapper
        inner = mapper[1 : 1 + len(x), 1 : 1 + len(y)]

        assert inner.nonzero().tolist() == [list(pair) for pair in chosen]


def test_the_official_refinement_keeps_end_marks_to_positions():
    # start a ca t end ... -> start a bl ac k ca t end ..., and back
    longer = align_refinement_officially(parse('a cat'), parse('a black cat'))
    shorter = align_refinement_officially(parse('a black cat'), parse('a cat'))

    sources = [0, 1, -1, -1, -1, 2, 3, 4, 8, 9, 10, 11]
    assert torch.equal(longer.mapper, one_hot_columns(sources))
    assert longer.fresh.nonzero().flatten().tolist() == [2, 3, 4]
    # position 5 of the source is 'ca', a word
    sources = [0, 1, 5, 6, 7, 5, 6, 7, 8, 9, 10, 11]
    assert torch.equal(shorter.mapper, one_hot_columns(sources))
    assert not shorter.fresh.any()


# ----------------------------------------------------- equaliser and schedule
def test_equaliser():
    factors = equaliser(parse('a black cat'), [('cat', 2.5), (0, -1)])

    assert factors.tolist() == [1, -1, 1, 1, 1, 2.5, 2.5, 1, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="'dog' is not in the prompt"):
        equaliser(parse('a black cat'), [('dog', 2)])


def test_a_schedule_with_words_of_their_own():
    alphas = replacement_schedule(
        parse('a black cat'), 10, 0.6, [('cat', (0.2, 0.5)), ('a', 1.0)]
    )

    # of 11: 6.6, from 2.2 to 5.5, and 11
    common, cat, a = [1.0] * 6 + [0.0] * 4, [0.0] * 10, [1.0] * 10
    cat[2:5] = [1.0] * 3
    columns = [common, a, *[common] * 3, cat, cat, *[common] * 5]
    assert alphas.T.tolist() == columns
    with pytest.raises(ValueError, match="'dog' is not in the prompt"):
        replacement_schedule(parse('a cat'), 10, 0.6, [('dog', 0.1)])
