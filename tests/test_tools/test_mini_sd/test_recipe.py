"""The training recipe: what it feeds the parts is what it says."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from recipe import drawings
from recipe.clip import KINDS, ClipPair, Doubles, NearMisses, build_clip
from recipe.common import compiled, load
from recipe.export import keep_written
from recipe.names import NORM, NUMBERS, Names, features
from recipe.start import take_over
from recipe.tokenizer import load_tokenizer, name_id, train_tokenizer
from recipe.unet import Contexts, build_unet
from recipe.vae import build_vae, picture_loss
from tolerances import EXACT
from transformers import CLIPTextModel, CLIPTokenizer

from mmhiper.models.guidance import FILE, read_scale
from mmhiper.models.loading import BUNDLED

from world import caption, sample_individual, sample_scene

# The words of the ImageNet templates that Textual Inversion made its own.
TEMPLATE_WORDS = (
    *('a', 'the', 'my', 'one', 'of', 'in', 'style', 'photo', 'painting'),
    *('picture', 'rendering', 'rendition', 'depiction', 'illustration'),
    *('good', 'nice', 'cool', 'weird', 'clean', 'dirty', 'dark', 'bright'),
    *('small', 'large', 'cropped', 'close', '-', 'up'),
)


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    """Captions of a few scenes, and their tokenizer."""
    folder = tmp_path_factory.mktemp('mini_sd')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawings, 'COUNT', 1000)
        drawings.write_captions(folder)
    train_tokenizer(folder, lambda text: None)
    return folder


def captions(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    return [caption(sample_scene(rng), rng) for _ in range(count)]


def test_every_word_of_a_near_miss_or_a_template_is_one_token(work_dir):
    tokenizer = load_tokenizer(work_dir)
    words = [*(word for kind in KINDS for word in kind), *TEMPLATE_WORDS]
    for word in words:
        assert len(tokenizer.tokenize(word)) == 1, word
    assert tokenizer('a *')['input_ids'][2] == name_id(tokenizer)


def test_the_last_caption_of_a_drawing_says_who_with_a_name(work_dir):
    for texts in drawings.load_captions(work_dir):
        assert ['*' in text.split() for text in texts] == [False] * 4 + [True]


def test_a_near_miss_changes_one_word_into_another_of_its_kind(work_dir):
    tokenizer = load_tokenizer(work_dir)
    texts = [*captions(40), 'a toy robot']
    ids = np.asarray(
        tokenizer(texts, padding='max_length', max_length=77)['input_ids'],
        np.int16,
    )
    missed, found = NearMisses(work_dir)(ids, np.random.default_rng(0))
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


def test_a_double_is_of_the_same_group():
    groups = np.array([0, 1, 0, 2, 1, 0])
    index = np.array([0, 1, 2, 3, 4, 5] * 5)
    doubles = Doubles(groups)(index, np.random.default_rng(0))
    assert (groups[doubles] == groups[index]).all()
    assert (doubles != index).any()


def test_what_makes_an_individual_tells_it_from_others():
    rng = np.random.default_rng(0)
    who = np.stack([features(sample_individual(rng)) for _ in range(200)])
    assert who.shape == (200, NUMBERS)
    assert np.abs(who).max() < 6
    assert len(np.unique(who, axis=0)) == 200


@torch.no_grad()
def test_a_name_stands_for_one_row_and_nothing_else_moves():
    pair = ClipPair(vocabulary=40, start=38, end=39, name=7).eval()
    ids = torch.tensor([[38, 7, 3, 39], [38, 5, 3, 39]])
    who = torch.randn(2, NUMBERS, generator=torch.Generator().manual_seed(0))

    hidden, vectors = pair.read(ids, who)
    other, _ = pair.read(ids, who.flip(0))

    assert vectors.norm(dim=1) == pytest.approx(1)
    assert not torch.allclose(hidden[0, 1:], other[0, 1:])
    assert torch.equal(hidden[0, 0], other[0, 0])  # before the name
    assert torch.equal(hidden[1], other[1])
    plain = pair.text(input_ids=ids).last_hidden_state
    assert torch.equal(hidden[1], plain[1])
    assert Names(128)(who).norm(dim=1) == pytest.approx(NORM)


def test_contexts_keep_to_the_drawing(tmp_path):
    texts = np.ones((3, 5, 77, 128), np.float16)
    texts *= np.arange(1, 4, dtype=np.float16)[:, None, None, None]
    texts[:, -1] *= -1  # the named one
    np.save(tmp_path / 'texts.npy', texts)
    np.save(tmp_path / 'empty.npy', np.zeros((77, 128), np.float16))

    index = np.repeat([0, 1, 2], 400)
    rows = Contexts(tmp_path)(index, np.random.default_rng(0))[..., 0]

    known = torch.from_numpy(index + 1)[:, None].float()
    assert ((rows.abs() == known) | (rows == 0)).all()
    head, tail = rows[:, 0], rows[:, -1]
    # 0.1 of them empty, 0.1 cut, of the rest a fifth named, of 0.3 half a tail
    assert 0.06 < (head == 0).float().mean() < 0.14
    assert 0.06 < ((head != 0) & (tail == 0)).float().mean() < 0.14
    assert 0.1 < ((head > 0) & (tail < 0)).float().mean() < 0.2


def test_drawing_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, 'COUNT', 8)
    monkeypatch.setattr(drawings, '_CHUNK', 4)
    drawings.draw_all(tmp_path, 1)
    whole = np.array(drawings.load_drawings(tmp_path))
    part = whole.copy()
    part[4:] = 0
    np.save(tmp_path / 'drawings.part.npy', part)
    (tmp_path / 'drawings.npy').unlink()
    drawn: list[int] = []
    draw_chunk = drawings._draw_chunk

    def watched(start):
        drawn.append(start)
        return draw_chunk(start)

    here = SimpleNamespace(imap_unordered=map)  # a pool in this process
    monkeypatch.setattr(drawings, '_draw_chunk', watched)
    monkeypatch.setattr(
        drawings.multiprocessing, 'Pool', lambda _: nullcontext(here)
    )
    drawings.draw_all(tmp_path, 1)

    assert drawn == [4]
    assert np.array_equal(drawings.load_drawings(tmp_path), whole)


def test_the_autoencoder_starts_with_a_narrow_posterior():
    vae = build_vae()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    assert vae.encode(pixels).latent_dist.std.max() < 0.06


def test_the_picture_loss_is_the_sum_it_says():
    made, wanted = (
        torch.zeros(2, 1, 2, 2),
        torch.tensor([[[[0.0, 1], [0, 1]]], [[[0.0, 0], [0, 0]]]]),
    )
    # roots of 1/2 and of nothing, edges: 0 down, 1 and 0 across
    expected = (0.5**0.5 + 0) / 2 + 0.25 * 0.5
    loss = picture_loss(made, wanted).item()
    assert loss == pytest.approx(expected, abs=1e-3)


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


def test_a_training_takes_over_what_an_export_knows(work_dir):
    """Words that both vocabularies know mean what they meant."""
    folder = BUNDLED['mini-sd']
    for stage in ('clip', 'unet'):
        take_over(stage, folder, work_dir, lambda text: None)
    saved = CLIPTextModel.from_pretrained(folder / 'text_encoder')
    saved.set_attn_implementation('eager')  # as training has it
    pair = build_clip(work_dir)
    pair.load_state_dict(load(work_dir / 'clip_start.pth')['model'])
    texts = ['a white dog on the grass', 'a sitting cat with a red ball']
    hidden = [
        model(
            tokenizer(texts, padding=True, return_tensors='pt')['input_ids']
        ).last_hidden_state
        for tokenizer, model in (
            (CLIPTokenizer.from_pretrained(folder / 'tokenizer'), saved),
            (load_tokenizer(work_dir), pair.text),
        )
    ]
    assert torch.equal(*hidden)
    unet = UNet2DConditionModel.from_pretrained(folder / 'unet').state_dict()
    taken = load(work_dir / 'unet_start.pth')['model']
    assert all(torch.equal(taken[name], unet[name]) for name in unet)


@pytest.mark.parametrize('attention', [True, False])
def test_an_autoencoder_without_attention_is_taken_over_too(
    work_dir, tmp_path, attention
):
    """What the export lacks adds nothing at first."""
    bundled = AutoencoderKL.from_pretrained(BUNDLED['mini-sd'] / 'vae')
    config = dict(bundled.config, mid_block_add_attention=attention)
    was = AutoencoderKL.from_config(config)
    was.load_state_dict(bundled.state_dict(), strict=False)
    was.save_pretrained(tmp_path / 'vae')

    take_over('vae', tmp_path, work_dir, lambda text: None)

    vae = build_vae()
    vae.load_state_dict(load(work_dir / 'autoencoder_start.pth')['model'])
    was.set_attn_processor(AttnProcessor())  # as training has it
    pixels = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        made = [m.double()(pixels.double()).sample for m in (vae, was)]
    torch.testing.assert_close(*made, **EXACT)


def test_an_export_keeps_what_was_written_by_hand(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    old.mkdir()
    new.mkdir()
    (old / FILE).write_text('{"guidance_scale": 2.0}')
    (old / 'model_index.json').write_text('{}')

    keep_written(old, new)

    assert read_scale(new / FILE) == 2
    assert [path.name for path in new.iterdir()] == [FILE]
