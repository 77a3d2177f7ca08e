"""The object in which encoded texts travel."""

import torch

from mmhiper.models import Conditioning


def numbered(start: int, pooled: bool = True) -> Conditioning:
    tokens = torch.arange(start, start + 12.0).reshape(2, 3, 2)
    return Conditioning(tokens, tokens[:, 0] if pooled else None)


def test_cat_and_slices_undo_each_other():
    a, b = numbered(0), numbered(100)

    both = Conditioning.cat([a, b])

    assert len(both) == 4
    assert torch.equal(both[2:].tokens, b.tokens)
    assert torch.equal(both[:2].pooled, a.pooled)


def test_without_a_pooled_part():
    both = Conditioning.cat([numbered(0, False), numbered(9, False)])

    assert both.pooled is None
    assert both.repeat_interleave(2).pooled is None


def test_copies_of_a_text_stay_together():
    repeated = numbered(0).repeat_interleave(2)

    assert torch.equal(repeated.tokens[0], repeated.tokens[1])
    assert torch.equal(repeated.tokens[2], numbered(0).tokens[1])
    assert torch.equal(repeated.pooled[3], numbered(0).pooled[1])


def test_new_tokens_keep_the_pooled_part():
    text = numbered(0)

    changed = text.with_tokens(text.tokens + 1)

    assert torch.equal(changed.tokens, text.tokens + 1)
    assert changed.pooled is text.pooled


def test_cast_reaches_all_tensors():
    text = numbered(0).to(torch.float16)

    assert text.tokens.dtype == text.pooled.dtype == torch.float16
