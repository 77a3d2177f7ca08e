"""Texts that vary by layer and by stage: who reads what."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from tolerances import EXACT

from mmhiper.models import Conditioning, StableDiffusion
from mmhiper.models.attention import attention_control, module_of
from mmhiper.models.layered_text import cross_layers

pytestmark = pytest.mark.usefixtures('float64')


def texts_of(sd, count, seed=0):
    """Some texts that are unlike one another, (count, M, D)."""
    generator = torch.Generator().manual_seed(seed)
    shape = sd.encode_text(['a dog']).tokens.shape[1:]
    return torch.randn((count, *shape), generator=generator)


def noisy(count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn((count, 4, 8, 8), generator=generator)


def test_layers_are_in_the_order_of_the_picture(tiny_sd1):
    unet = StableDiffusion(str(tiny_sd1)).unet
    seen = []
    layers = cross_layers(unet)
    for layer in layers:
        module_of(unet, layer).register_forward_pre_hook(
            lambda *_, name=layer.name: seen.append(name)
        )

    unet(noisy(1), 5, torch.zeros(1, 77, unet.config.cross_attention_dim))

    assert seen == [layer.name for layer in layers]
    assert len(layers) > 2


class ReadsOwn(AttnProcessor):
    """What a layer of its own text would be, written by hand."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def __call__(self, attn, hidden_states, *args, **kwargs):
        kwargs['encoder_hidden_states'] = self.text
        return super().__call__(attn, hidden_states, **kwargs)


def test_each_layer_reads_its_own_text(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    layers = cross_layers(sd.unet)
    texts = texts_of(sd, 2 * len(layers))
    text = Conditioning(texts).by_layer(len(layers))
    before = dict(sd.unet.attn_processors)
    for number, layer in enumerate(layers):
        own = texts[2 * number : 2 * number + 2]
        module_of(sd.unet, layer).set_processor(ReadsOwn(own))
    unused = Conditioning(torch.full_like(texts[:2], torch.nan))
    expected = sd.predict(noisy(), torch.tensor(7), unused)
    sd.unet.set_attn_processor(before)

    ours = sd.predict(noisy(), torch.tensor(7), text)

    assert expected.isfinite().all()
    torch.testing.assert_close(ours, expected, **EXACT)
    with attention_control(sd.unet):  # other processors, the same text
        split = sd.predict(noisy(), torch.tensor(7), text)
    torch.testing.assert_close(split, expected, **EXACT)
    # and a text for all layers is read by all, as before
    plain = Conditioning(texts[:2])
    again = sd.predict(noisy(), torch.tensor(7), plain)
    fresh = StableDiffusion(str(tiny_sd1))
    assert torch.equal(again, fresh.predict(noisy(), torch.tensor(7), plain))


@pytest.mark.parametrize('form', [(1, 1), (4, 1), (1, 3), (4, 3)])
def test_the_constant_case_is_exact(tiny_sd1, form):
    sd = StableDiffusion(str(tiny_sd1))
    stages, layers = form
    layers = len(cross_layers(sd.unet)) if layers > 1 else 1
    plain = Conditioning(texts_of(sd, 2))
    same = plain.tokens[:, None, None].expand(-1, stages, layers, -1, -1)

    for t in (torch.tensor(0), torch.tensor(999), torch.tensor([3, 700])):
        assert torch.equal(
            sd.predict(noisy(), t, Conditioning(same)),
            sd.predict(noisy(), t, plain),
        )


def test_each_row_of_a_batch_reads_its_stage(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    texts = texts_of(sd, 10 * 3)
    text = Conditioning(texts).by_stage(10)  # (3, 10, 1, M, D)
    timesteps = torch.tensor([999, 450, 0])  # stages 0, 5, 9

    ours = sd.predict(noisy(3), timesteps, text)

    chosen = Conditioning(texts[[0, 5 * 3 + 1, 9 * 3 + 2]])
    expected = sd.predict(noisy(3), timesteps, chosen)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ('timestep', 'stage'),
    [(999, 0), (900, 0), (899, 1), (899.9, 1), (500, 4), (499, 5), (99, 9)]
    + [(0, 9)],
)
def test_the_stages_part_the_timesteps_evenly(timestep, stage):
    tokens = torch.arange(10.0).reshape(1, 10, 1, 1, 1)

    found = Conditioning(tokens).at(torch.tensor(timestep), 1000)

    assert found.tokens.item() == stage


def test_a_text_of_several_chunks_is_read_whole(tiny_sd1):
    """By every layer, before and after there are texts that vary."""
    sd = StableDiffusion(str(tiny_sd1))
    layers = len(cross_layers(sd.unet))
    plain = Conditioning(texts_of(sd, 2).flatten(0, 1)[None])
    before = sd.predict(noisy(1), torch.tensor(9), plain)
    varied = Conditioning(texts_of(sd, layers)).by_layer(layers)
    sd.predict(noisy(1), torch.tensor(9), varied)

    after = sd.predict(noisy(1), torch.tensor(9), plain)
    stages = Conditioning.cat([plain] * 2).by_stage(2)
    staged = sd.predict(noisy(1), torch.tensor(9), stages)

    assert torch.equal(after, before)
    torch.testing.assert_close(staged, before, **EXACT)


def test_guidance_joins_a_plain_text_to_one_that_varies(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    layers = len(cross_layers(sd.unet))
    texts = texts_of(sd, 1 + layers)
    plain = Conditioning(texts[:1])
    varied = Conditioning(texts[1:]).by_layer(layers)

    both = sd.predict(
        noisy(), torch.tensor(9), Conditioning.cat([plain, varied])
    )

    one, other = noisy().split(1)
    expected = [
        sd.predict(one, torch.tensor(9), plain),
        sd.predict(other, torch.tensor(9), varied),
    ]
    torch.testing.assert_close(both, torch.cat(expected), **EXACT)


def test_the_values_vary_with_the_keys(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    layers = len(cross_layers(sd.unet))
    keys = Conditioning(texts_of(sd, layers)).by_layer(layers)
    values = Conditioning(texts_of(sd, layers, seed=3)).by_layer(layers)
    varied = keys.with_values(values.tokens)

    with attention_control(sd.unet):
        ours = sd.predict(noisy(1), torch.tensor(9), varied)
        same = keys.with_values(keys.tokens)
        plain = sd.predict(noisy(1), torch.tensor(9), same)
        bare = sd.predict(noisy(1), torch.tensor(9), keys)

    torch.testing.assert_close(plain, bare, **EXACT)
    assert (ours - bare).abs().max() > 1e-6


def test_a_pooled_text_is_the_mean(tiny_sd1):
    tokens, pooled = torch.randn(6, 3, 2), torch.randn(6, 5)

    text = Conditioning(tokens, pooled).by_stage(3)

    assert text.tokens.shape == (2, 3, 1, 3, 2)
    assert torch.equal(text.tokens[1, 2, 0], tokens[5])
    torch.testing.assert_close(text.pooled[0], pooled[[0, 2, 4]].mean(0))
