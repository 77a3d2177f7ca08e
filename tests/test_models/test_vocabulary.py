"""Texts to ids, with placeholders; the reference is the tokenizer itself."""

import pytest
import torch
from tiny import make_word
from transformers import CLIPTokenizer

from mmhiper.models.vocabulary import Vocabulary

TEXTS = ['', 'a dog', 'A Dog, at night!', 'x' * 200, 'naïve  café']


@pytest.fixture
def tokenizer(tiny_sd1):
    return CLIPTokenizer.from_pretrained(tiny_sd1, subfolder='tokenizer')


@pytest.fixture
def vocabulary(tokenizer):
    return Vocabulary(tokenizer)


def test_without_placeholders_it_is_the_tokenizer(tokenizer, vocabulary):
    expected = tokenizer(
        TEXTS, padding='max_length', truncation=True, return_tensors='pt'
    ).input_ids

    assert torch.equal(vocabulary.encode(TEXTS), expected)


def test_text_is_cut_to_max_tokens(tokenizer, vocabulary):
    expected = tokenizer(
        TEXTS,
        padding='max_length',
        truncation=True,
        max_length=7,
        return_tensors='pt',
    ).input_ids

    ids = vocabulary.encode(TEXTS, max_tokens=5)
    assert torch.equal(ids[:, :7], expected)
    assert (ids[:, 7:] == tokenizer.pad_token_id).all()


def test_a_placeholder_becomes_its_new_ids(tokenizer, vocabulary):
    vocabulary.add('<cat-toy>', 2)
    vocabulary.add('<sketchy>', 1)
    size = len(tokenizer)

    ids = vocabulary.encode(['a <sketchy> <cat-toy>, <cat-toy>'])[0]
    letters = tokenizer('a', add_special_tokens=False).input_ids
    comma = tokenizer(',', add_special_tokens=False).input_ids
    toy = [size, size + 1]
    expected = [tokenizer.bos_token_id, *letters, size + 2, *toy, *comma, *toy]
    assert ids[: len(expected)].tolist() == expected
    assert (ids[len(expected) :] == tokenizer.eos_token_id).all()
    assert vocabulary.num_rows == 3
    assert list(vocabulary.rows_of('<cat-toy>')) == [0, 1]


def test_fewer_tokens_of_a_placeholder_can_be_asked_for(vocabulary):
    vocabulary.add('<cat-toy>', 3)

    ids = vocabulary.encode(['<cat-toy>'], lengths={'<cat-toy>': 1})[0]
    assert (ids >= vocabulary.size).sum() == 1
    assert ids[1] == vocabulary.size


def test_the_given_tokenizer_stays_as_it_is(tokenizer, vocabulary):
    before = len(tokenizer), tokenizer('<cat-toy>').input_ids
    vocabulary.add('<cat-toy>', 2)

    assert (len(tokenizer), tokenizer('<cat-toy>').input_ids) == before


def test_a_copy_takes_more_without_changing_the_first(vocabulary):
    vocabulary.add('<cat-toy>', 2)
    other = vocabulary.copy()
    other.add('<sketchy>', 1)

    assert vocabulary.find('a <sketchy> <cat-toy>') == ['<cat-toy>']
    assert other.find('a <sketchy> <cat-toy>') == ['<sketchy>', '<cat-toy>']


@pytest.mark.parametrize(
    ('placeholder', 'words'),
    [
        ('', 'one word'),
        ('cat toy', 'one word'),
        ('x', 'exists'),
        ('<cat-toy>', 'exists'),
        ('my<cat-toy>', 'contain'),
        ('cat-toy', 'contain'),
    ],
)
def test_a_placeholder_that_is_no_new_word_is_refused(
    vocabulary, placeholder, words
):
    vocabulary.add('<cat-toy>', 1)

    with pytest.raises(ValueError, match=words):
        vocabulary.add(placeholder, 1)


def test_a_sign_that_is_one_token_may_be_a_placeholder(tokenizer, vocabulary):
    """The `*` of the original code, wherever a text has it."""
    vocabulary.add('*', 2)
    size = len(tokenizer)
    plain = tokenizer('a , b', add_special_tokens=False).input_ids

    ids = vocabulary.encode(['a*, * b'])[0].tolist()
    star = [size, size + 1]
    assert ids[1:8] == [plain[0], *star, plain[1], *star, plain[2]]
    assert vocabulary.find('a photo of *') == ['*']
    assert len(tokenizer) == size
    with pytest.raises(ValueError, match='exists'):
        vocabulary.add('*', 1)


def test_a_single_token_has_its_id(tokenizer, vocabulary):
    expected = tokenizer('x', add_special_tokens=False).input_ids
    assert [vocabulary.single_token('x')] == expected


def test_several_tokens_are_refused_with_pieces_and_near_words(vocabulary):
    table = torch.eye(vocabulary.size)
    ids = vocabulary._tokenizer.convert_tokens_to_ids
    table[ids('q</w>')] = table[ids('x')] + table[ids('y</w>')]
    with pytest.raises(ValueError) as caught:
        vocabulary.single_token('xy', table)

    assert "is 2: 'x', 'y</w>'" in str(caught.value)
    assert "a word of one token, such as 'q', 'y', " in str(caught.value)


def test_suggestions_are_whole_words():
    with pytest.raises(ValueError) as caught:
        make_word('mini-sd', initialize_token='hamster')
    near = str(caught.value).partition('such as ')[2].strip('.').split(', ')
    known = make_word('mini-sd', initialize_token='cat').sd.vocabulary
    assert len(near) == 5
    # tokens that only end other words: sk-etch, s-lim, pen-cil
    fragments = {"'etch'", "'ketch'", "'lim'", "'cil'", "'ing'"}
    assert not fragments & set(near)
    for word in (each.strip("'") for each in near):
        assert len(word) > 2 and word.isalpha()
        assert known.single_token(word)


# ---------------------------------------------------------------- whole words
@pytest.mark.parametrize(
    ('placeholder', 'text', 'count'),
    [
        ('sks', 'a photo of sks', 1),
        ('sks', 'sks, sks-like (SKS) "sks" sks\'s', 5),
        ('sks', 'two desks, sks2 and my_sks, asksb, skséa', 0),
        ('ca', 'a xcay, a cat, mca', 0),
        ('2b', 'a 2b, not 12b or 2bb', 1),
        ('<cat-toy>', 'a<cat-toy>s <Cat-Toy>', 2),
        ('cat*', 'a cat*s, a wildcat*', 1),
        ('*cat', 'a big*cat, *cats', 1),
        ('sks', '\u4e00\u53easks\u72d7', 1),  # no spaces in that script
        ('<caf\u00e9>', 'a <cafe\u0301>', 1),  # as a Mac stores it
    ],
)
def test_a_placeholder_is_a_whole_word(vocabulary, placeholder, text, count):
    plain = vocabulary.encode([text])
    vocabulary.add(placeholder, 1)

    assert vocabulary.find(text) == [placeholder] * count
    ids = vocabulary.encode([text])
    assert int((ids >= vocabulary.size).sum()) == count
    if not count:
        assert torch.equal(ids, plain)


@pytest.mark.parametrize('word', ['<cat-TOY>', 'Cat-toy', 'MY<cat-toy>'])
def test_capitals_make_no_other_word(vocabulary, word):
    vocabulary.add('<Cat-Toy>', 1)
    with pytest.raises(ValueError, match=r'exists|contain'):
        vocabulary.add(word, 1)


def test_words_are_replaced_as_they_are_found(vocabulary):
    vocabulary.add('<cat-toy>', 1)
    vocabulary.add('sks', 2)
    text = 'A <Cat-Toy> on desks, SKS'
    new = vocabulary.replace(text, {'<cat-toy>': 'toy', 'sks': 'dog'})
    assert new == 'A toy on desks, dog'
