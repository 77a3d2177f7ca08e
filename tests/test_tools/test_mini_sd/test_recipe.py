"""The training recipe: what it feeds the parts is what it says."""

import numpy as np
import pytest
import torch
from recipe.clip import KINDS, NearMisses
from recipe.common import compiled
from recipe.tokenizer import load_tokenizer
from recipe.unet import build_unet
from recipe.vae import build_vae, picture_loss
from tolerances import EXACT

from mmhiper.models.loading import BUNDLED

from world import caption, sample_scene

FOLDER = BUNDLED['mini-sd']  # its tokenizer lies where the recipe keeps one


def captions(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    return [caption(sample_scene(rng), rng) for _ in range(count)]


def test_every_word_of_a_near_miss_is_one_token():
    tokenizer = load_tokenizer(FOLDER)
    for word in (word for kind in KINDS for word in kind):
        assert len(tokenizer.tokenize(word)) == 1, word


def test_a_near_miss_changes_one_word_into_another_of_its_kind():
    tokenizer = load_tokenizer(FOLDER)
    texts = [*captions(40), 'a toy robot']
    ids = np.asarray(
        tokenizer(texts, padding='max_length', max_length=77)['input_ids'],
        np.int16,
    )
    missed, found = NearMisses(FOLDER)(ids, np.random.default_rng(0))
    assert not found[-1]
    assert found[:-1].mean() > 0.9
    for before, after, any_word in zip(ids, missed, found, strict=True):
        places = np.flatnonzero(before != after)
        assert len(places) == any_word
        for place in places:
            old, new = (
                tokenizer.decode([row[place]]).strip()
                for row in (before, after)
            )
            assert any(old in kind and new in kind for kind in KINDS)


def test_the_autoencoder_starts_with_a_narrow_posterior():
    vae = build_vae()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    assert vae.encode(pixels).latent_dist.std.max() < 0.06


def test_the_picture_loss_is_the_sum_it_says():
    made, wanted = (
        torch.zeros(1, 1, 2, 2),
        torch.tensor([[[[0.0, 1], [0, 1]]]]),
    )
    # L1 1/2, L2 1/2, edges: 0 down and 1 across
    expected = 0.5 + 2 * 0.5 + 0.5 * 1
    assert picture_loss(made, wanted).item() == pytest.approx(expected)


@pytest.mark.usefixtures('float64')
def test_written_out_upsampling_is_the_library_s(monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda model, **_: model)
    generator = torch.Generator().manual_seed(0)
    unet = build_unet()
    x = torch.randn(2, 4, 16, 16, generator=generator)
    c = torch.randn(2, 77, 128, generator=generator)
    t = torch.tensor([3, 700])
    stock = unet(x, t, c).sample
    torch.testing.assert_close(compiled(unet)(x, t, c).sample, stock, **EXACT)
