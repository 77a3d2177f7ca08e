"""Where the words of a prompt stand."""

import pytest

from mmhiper.models.prompt import Prompt

M = 12


def parse(text: str) -> Prompt:
    """One token per two letters: 'cat' has two, 'a' one."""

    def tokenize(word: str) -> list[int]:
        pairs = [word[i : i + 2] for i in range(0, len(word), 2)]
        return [int.from_bytes(pair.encode(), 'big') for pair in pairs]

    return Prompt.parse(text, tokenize, M)


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


def test_a_word_may_be_its_place():
    prompt = parse('a black cat, a hat')

    assert prompt.positions(1) == [2, 3, 4]
    assert prompt.positions(3) == [7]  # this 'a' alone
    marks = prompt.indicator([0, 'hat'])
    assert marks.nonzero().flatten().tolist() == [1, 8, 9]


@pytest.mark.parametrize('place', [-1, 3])
def test_a_place_that_is_not_there(place):
    with pytest.raises(ValueError, match=rf'in \[0, 2\], but got {place}'):
        parse('a black cat').positions(place)


@pytest.mark.parametrize('word', ['dog', 'cat black', '', 'bla'])
def test_a_word_that_is_not_there(word):
    with pytest.raises(ValueError, match=r'is not in the prompt.*black, cat'):
        parse('a black cat').positions(word)


def test_a_prompt_that_does_not_fit():
    parse('a ' * 10)
    with pytest.raises(ValueError, match=r'at most 10 tokens.*has 11'):
        parse('a ' * 11)
