"""The rows of new words: what holding their length does."""

import pytest
import torch
from tolerances import EPS

from mmhiper.models.embeddings import TokenEmbedding

# A length in single precision is a sum of at most 64 squares, and its root;
# the rows are then multiplied once.
LENGTH = dict(rtol=128 * EPS, atol=0)


def rows(count, width, seed=0, scale=0.02):
    """Random rows like those of a table."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn((count, width), generator=generator)


def move(embedding, word):
    """Moves a word's rows by far more than they are long."""
    row = embedding.rows_of(word)
    with torch.no_grad():
        row.add_(rows(*row.shape, seed=9, scale=1.0))
    return row.detach().clone()


def test_held_rows_keep_their_direction_and_get_their_length_back():
    start = rows(3, 48)
    embedding = TokenEmbedding({'<a>': start})
    away = move(embedding, '<a>')

    embedding.hold_norm([48])

    wanted = start.norm(dim=1, keepdim=True)
    expected = away * (wanted / away.norm(dim=1, keepdim=True))
    torch.testing.assert_close(embedding.rows.detach(), expected, **LENGTH)


def test_each_text_encoder_has_a_length_of_its_own():
    """Two tables of other widths and spreads side by side, as in XL."""
    widths = [16, 32]
    parts = [rows(2, 16, scale=0.01), rows(2, 32, seed=5, scale=1.0)]
    embedding = TokenEmbedding({'<a>': torch.cat(parts, 1)})
    move(embedding, '<a>')

    embedding.hold_norm(widths)

    held = embedding.rows.detach().split(widths, 1)
    for part, start in zip(held, parts, strict=True):
        torch.testing.assert_close(
            part.norm(dim=1), start.norm(dim=1), **LENGTH
        )


@pytest.mark.parametrize('scale', [1e-3, 1.0])
def test_what_no_step_has_moved_stays_bit_equal(scale):
    """A word that a step lacks, and one that is held already."""
    embedding = TokenEmbedding(
        {'<a>': rows(4, 48, scale=scale), '<b>': rows(2, 48, seed=3)}
    )
    still = embedding.rows_of('<b>').detach().clone()
    move(embedding, '<a>')
    embedding.hold_norm([48])
    once = embedding.rows_of('<a>').detach().clone()

    for _ in range(5):
        embedding.hold_norm([48])

    assert torch.equal(embedding.rows_of('<a>'), once)
    assert torch.equal(embedding.rows_of('<b>'), still)


def test_rows_from_elsewhere_keep_their_own_length():
    embedding = TokenEmbedding({'<a>': rows(2, 48)})
    loaded = rows(1, 48, seed=4, scale=1.0)
    embedding.start_from('<a>', loaded)
    move(embedding, '<a>')

    embedding.hold_norm([48])

    torch.testing.assert_close(
        embedding.rows.detach().norm(dim=1),
        torch.cat([loaded, rows(2, 48)[1:]]).norm(dim=1),
        **LENGTH,
    )


def test_a_row_of_nothing_stays_finite():
    embedding = TokenEmbedding({'<a>': rows(2, 48)})
    with torch.no_grad():
        embedding.rows[0] = 0
    embedding.hold_norm([48])
    assert torch.equal(embedding.rows[0], torch.zeros(48))
    assert embedding.rows.isfinite().all()
