"""Mappers, equalisers and schedules on prompts made by hand."""

import pytest
import torch
from tolerances import EXACT

from mmhiper.models.prompt_alignment import (
    Prompt,
    align_refinement,
    align_replacement,
    equaliser,
    num_steps_of,
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


# ---------------------------------------------------------------------- words
def test_words_stand_behind_the_start_mark():
    prompt = parse('a black cat, a hat')

    assert prompt.words == ('a', 'black', 'cat,', 'a', 'hat')
    assert prompt.spans == [
        range(1, 2),
        range(2, 5),
        range(5, 7),
        range(7, 8),
        range(8, 10),
    ]
    assert prompt.end == 10
    assert prompt.positions('black') == [2, 3, 4]
    assert prompt.positions('a') == [1, 7]
    assert prompt.positions('Cat') == [5, 6]
    assert prompt.positions('black cat') == [2, 3, 4, 5, 6]
    assert prompt.indicator(['hat', 'a']).nonzero().flatten().tolist() == [
        1, 7, 8, 9
    ]  # fmt: skip


def test_the_tokenizer_agrees_word_by_word(tiny_sd1):
    from mmhiper.models import StableDiffusion

    sd = StableDiffusion(str(tiny_sd1))

    def tokenize(text):
        return sd.tokenizer(text, add_special_tokens=False).input_ids

    text = "A black  cat's hat, (red-ish)!  "
    prompt = Prompt.parse(text, tokenize, 77)

    assert [i for ids in prompt.ids for i in ids] == tokenize(text)


@pytest.mark.parametrize('word', ['dog', 'cat black', '', 'bla'])
def test_a_word_that_is_not_there(word):
    with pytest.raises(ValueError, match=r'is not in the prompt.*black, cat'):
        parse('a black cat').positions(word)


def test_a_prompt_that_does_not_fit():
    parse('a ' * 10)
    with pytest.raises(ValueError, match=r'at most 10 tokens.*has 11'):
        parse('a ' * 11)


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


def test_replacement_needs_as_many_words():
    with pytest.raises(ValueError, match=r"has 2 and .* has 3.*'refinement'"):
        align_replacement(parse('a cat'), parse('a black cat'))


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


# ----------------------------------------------------- equaliser and schedule
def test_equaliser():
    factors = equaliser(parse('a black cat'), {'cat': 2.5, 'a': -1})

    assert factors.tolist() == [1, -1, 1, 1, 1, 2.5, 2.5, 1, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="'dog' is not in the prompt"):
        equaliser(parse('a black cat'), {'dog': 2})


@pytest.mark.parametrize(
    ('fraction', 'steps', 'count'),
    [(0, 30, 0), (1, 30, 30), (0.6, 30, 18), (0.29, 100, 29), (0.01, 30, 0)],
)
def test_a_fraction_of_the_steps(fraction, steps, count):
    assert num_steps_of(fraction, steps) == count


def test_a_schedule_with_a_word_of_its_own():
    alphas = replacement_schedule(
        parse('a black cat'), 10, 0.6, {'cat': 0.2, 'a': 1.0}
    )

    assert alphas.shape == (10, M)
    counts = alphas.sum(0).tolist()
    assert counts == [6, 10, 6, 6, 6, 2, 2, 6, 6, 6, 6, 6]
    # first the replaced steps, then the free ones
    assert torch.equal(alphas, alphas.sort(0, descending=True).values)
    with pytest.raises(ValueError, match="'dog' is not in the prompt"):
        replacement_schedule(parse('a cat'), 10, 0.6, {'dog': 0.1})
