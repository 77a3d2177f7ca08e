"""Learned words in memory."""

import pytest
import torch
from torch import nn

from mmhiper.io import TokenFile


def test_rows_are_plain_copies():
    learned = nn.Parameter(torch.ones(8, dtype=torch.float64))

    rows = TokenFile({'<a>': learned}, 'diffusers').embeddings['<a>']
    with torch.no_grad():
        learned.zero_()

    assert torch.equal(rows, torch.ones(1, 8))
    assert rows.dtype == torch.float32 and not rows.requires_grad


def test_words_can_change_places():
    first = {'<a>': torch.zeros(1, 4), '<b>': torch.ones(1, 4)}
    second = {'<a>': torch.zeros(1, 6)}
    tokens = TokenFile(first, 'kohya', second, dict(step='5'))

    renamed = tokens.renamed({'<a>': '<b>', '<b>': '<a>', '<c>': '<d>'})

    assert renamed.placeholders == ['<b>', '<a>']
    assert not renamed.embeddings['<b>'].any()
    assert renamed.embeddings['<a>'].all()
    assert list(renamed.second) == ['<b>']
    assert renamed.metadata == tokens.metadata


def test_two_words_of_one_name():
    tokens = TokenFile({'<a>': torch.ones(4), '<b>': torch.ones(4)}, 'x')

    with pytest.raises(ValueError, match='placeholder of its own'):
        tokens.renamed({'<a>': '<b>'})


def test_one_word_of_several():
    tokens = TokenFile({'<a>': torch.zeros(4), '<b>': torch.ones(4)}, 'x')

    assert tokens.only('<b>').placeholders == ['<b>']
    with pytest.raises(ValueError, match=r"'<c>'.* '<a>', '<b>'"):
        tokens.only('<c>')


@pytest.mark.parametrize(
    'tensor',
    [torch.ones(2, 4).to_sparse(), torch.ones(2, 4, device='meta'), [1.0]],
)
def test_what_is_no_plain_tensor(tensor):
    with pytest.raises(ValueError, match='a plain tensor of floats'):
        TokenFile({'<a>': tensor}, 'x')
