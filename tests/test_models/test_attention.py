"""Attention under control: exact where nothing is asked, undone afterwards."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from tolerances import EXACT, float64

from mmhiper.models import Conditioning, StableDiffusion
from mmhiper.models.attention import (
    AttentionControl,
    Layer,
    MapAverage,
    MapStore,
    SplitAttention,
    attention_control,
    attention_layers,
    blend_mask,
    enlarge_maps,
    map_layers,
)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


T = torch.tensor(500)


# all numbers are of double precision
pytestmark = pytest.mark.usefixtures('float64')


@pytest.fixture(scope='module')
def sd(tiny_sd1):
    with float64():
        return StableDiffusion(str(tiny_sd1))


@pytest.fixture(scope='module')
def text(sd):
    with float64():
        return sd.encode_text(['', 'a dog'])


class Everything(AttentionControl):
    """Asks for all maps and changes none."""

    def wants_maps(self, layer):
        return True


def test_nothing_changes_when_nothing_is_asked(sd, text):
    z = noise(0, 2, 4, 8, 8)
    plain = sd.predict(z, T, text)

    with attention_control(sd.unet):
        fast = sd.predict(z, T, text)
        same = sd.predict(z, T, text.with_values(text.tokens))
    with attention_control(sd.unet, Everything()):
        spelled_out = sd.predict(z, T, text)

    for ours in (fast, same, spelled_out):
        torch.testing.assert_close(ours, plain, **EXACT)


@pytest.mark.parametrize('controls', [[], [Everything()]])
def test_values_reach_to_v_of_cross_attention_alone(sd, text, controls):
    values = noise(1, *text.tokens.shape)
    seen = {}

    def watch(name):
        return lambda module, args: seen.update({name: args[0]})

    handles = [
        module.register_forward_pre_hook(watch(name))
        for name, module in sd.unet.named_modules()
        if name.endswith(('to_q', 'to_k', 'to_v'))
    ]
    try:
        with attention_control(sd.unet, *controls):
            sd.predict(noise(0, 2, 4, 8, 8), T, text.with_values(values))
    finally:
        for handle in handles:
            handle.remove()

    cross = [name for name in seen if 'attn2' in name]
    assert len(cross) == 3 * 4 and len(seen) == 2 * len(cross)
    for name, received in seen.items():
        if name in cross and name.endswith('to_v'):
            assert received is values
        elif name in cross and name.endswith('to_k'):
            assert received is text.tokens
        else:  # features of the picture
            assert received.shape[1] == 16


def test_values_without_control_are_our_mistake(sd, text):
    with pytest.raises(AssertionError):
        sd.predict(noise(0, 2, 4, 8, 8), T, text.with_values(text.tokens))


def test_processors_come_back_also_on_error(sd):
    before = sd.unet.attn_processors

    with pytest.raises(RuntimeError), attention_control(sd.unet):
        inside = sd.unet.attn_processors
        raise RuntimeError

    assert all(isinstance(p, SplitAttention) for p in inside.values())
    after = sd.unet.attn_processors
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)


def test_maps_are_softmax_over_positions(sd, text):
    layers = map_layers(attention_layers(sd.unet))
    store = MapStore(layers)
    with attention_control(sd.unet, store):
        sd.predict(noise(0, 2, 4, 8, 8), T, text)

    assert set(store.maps) == {layer.name for layer in layers}
    assert len(layers) == 3  # one in the down part, two in the up part
    for maps in store.maps.values():
        assert maps.shape == (2, 4, 16, 77)
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 16), **EXACT)


def test_a_map_is_the_textbook_formula(sd, text):
    (name,) = [
        layer.name
        for layer in attention_layers(sd.unet)
        if layer.cross and layer.part == 'down'
    ]
    attn = sd.unet.get_submodule(name.removesuffix('.processor'))
    store = MapStore(map_layers(attention_layers(sd.unet)))
    received = []
    handle = attn.to_q.register_forward_pre_hook(
        lambda module, args: received.append(args[0])
    )
    try:
        with attention_control(sd.unet, store):
            sd.predict(noise(0, 2, 4, 8, 8), T, text)
    finally:
        handle.remove()

    # eq. 1 of the transformer, head by head
    q = received[0] @ attn.to_q.weight.T
    k = text.tokens @ attn.to_k.weight.T
    size = q.shape[-1] // 4
    for head in range(4):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / size**0.5
        expected = scores.exp() / scores.exp().sum(-1, keepdim=True)
        torch.testing.assert_close(
            store.maps[name][:, head], expected, **EXACT
        )


def test_gradients_pass_through_maps_and_values(sd, text):
    tokens = text.tokens.clone().requires_grad_()
    values = text.tokens.clone().requires_grad_()
    store = MapStore(map_layers(attention_layers(sd.unet)))

    with attention_control(sd.unet, store):
        output = sd.predict(
            noise(0, 2, 4, 8, 8), T, Conditioning(tokens, None, values)
        )
    (
        output.square().sum()
        + sum(m.square().sum() for m in store.maps.values())
    ).backward()

    assert tokens.grad.abs().max() > 0
    assert values.grad.abs().max() > 0


class Borrow(AttentionControl):
    def borrow(self, layer):
        return [0, 0] if layer.side == 4 else None


def test_borrowed_self_attention_is_the_map_of_the_other_row(sd):
    name = next(
        layer.name for layer in attention_layers(sd.unet) if not layer.cross
    )
    attn = sd.unet.get_submodule(name.removesuffix('.processor'))
    features = noise(3, 2, 16, 16)

    with attention_control(sd.unet, Borrow()):
        mixed = attn(features)

    # the map of row 0, with the values of row 1
    q, k = attn.to_q(features[:1]), attn.to_k(features[:1])
    maps = attn.get_attention_scores(
        attn.head_to_batch_dim(q), attn.head_to_batch_dim(k)
    )
    values = attn.head_to_batch_dim(attn.to_v(features[1:]))
    by_hand = attn.to_out[0](attn.batch_to_head_dim(maps @ values))
    torch.testing.assert_close(mixed[1:], by_hand, **EXACT)
    torch.testing.assert_close(mixed[:1], attn(features[:1]), **EXACT)
    assert not torch.allclose(mixed[1:], attn(features[1:]), atol=1e-3)


# --------------------------------------------------------------------- layers
def with_config(side, down, up):
    """A U-Net of some layout, weights of no interest."""
    return UNet2DConditionModel(
        sample_size=side,
        block_out_channels=(4,) * len(down),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=2,
        cross_attention_dim=4,
        down_block_types=[
            'CrossAttnDownBlock2D' if x else 'DownBlock2D' for x in down
        ],
        up_block_types=[
            'CrossAttnUpBlock2D' if x else 'UpBlock2D' for x in up
        ],
    )


@pytest.mark.parametrize(
    ('latents', 'down', 'up', 'side', 'count'),
    [
        # Stable Diffusion 1.x (one layer per block fewer), and 2.x at 768
        (64, (1, 1, 1, 0), (0, 1, 1, 1), 16, 1 + 2),
        (96, (1, 1, 1, 0), (0, 1, 1, 1), 24, 1 + 2),
        # the bundled model's layout: at 16x16 only the down part attends
        (16, (1, 1, 1), (1, 1, 0), 8, 1 + 2),
        (16, (1, 1, 1), (0, 0, 0), 16, 1),
    ],
)
def test_the_maps_that_show_words(latents, down, up, side, count):
    layers = attention_layers(with_config(latents, down, up))

    chosen = map_layers(layers)

    assert {layer.side for layer in chosen} == {side}
    assert len(chosen) == count
    assert all(layer.cross and layer.part != 'mid' for layer in chosen)


def test_sides_are_those_of_the_feature_maps(sd):
    seen = {}
    handles = [
        module.register_forward_pre_hook(
            lambda m, a, name=name: seen.update({name: a[0].shape[1]})
        )
        for name, module in sd.unet.named_modules()
        if name.endswith('to_q')
    ]
    sd.predict(noise(0, 1, 4, 12, 12), T, sd.encode_text(['']))
    for handle in handles:
        handle.remove()

    for layer in attention_layers(sd.unet, latent_side=12):
        name = layer.name.removesuffix('processor') + 'to_q'
        assert seen[name] == layer.side**2


def test_a_side_without_layers_names_those_with(sd):
    with pytest.raises(ValueError, match=r'one of \[4\].*got 16'):
        map_layers(attention_layers(sd.unet), 16)


def test_a_unet_that_listens_in_its_middle_alone():
    layers = attention_layers(with_config(8, (0, 0), (0, 0)))

    assert {layer.part for layer in layers} == {'mid'}
    with pytest.raises(ValueError, match='No cross-attention layer'):
        map_layers(layers)


def test_attention_of_another_kind_is_refused(sd, monkeypatch):
    name = attention_layers(sd.unet)[0].name.removesuffix('.processor')
    attn = sd.unet.get_submodule(name)
    monkeypatch.setattr(attn, 'residual_connection', True)

    with (
        pytest.raises(ValueError, match='residual_connection'),
        attention_control(sd.unet),
    ):
        pass


# ----------------------------------------------------------------------- maps
def test_an_average_is_over_heads_layers_and_passes():
    layers = [Layer(name, 'up', True, 2, 4) for name in 'ab']
    average = MapAverage(layers, slice(1, 2))
    maps = [noise(i, 2, 3, 4, 5) for i in range(4)]
    for i, each in enumerate(maps):
        assert average.see(layers[i % 2], each) is each
    average.see(Layer('c', 'up', True, 2, 4), noise(9, 2, 3, 4, 5))

    expected = torch.stack(maps)[:, 1].mean((0, 1)).reshape(1, 2, 2, 5)
    torch.testing.assert_close(average.mean(), expected, **EXACT)


def test_a_blend_mask_by_hand():
    maps = torch.zeros(2, 4, 4, 5)
    maps[0, 0, 0, 1] = 1.0  # the source's word, top left
    maps[1, 0, 0, 2] = 0.5
    maps[1, 3, 3, 2] = 1.0  # the target's, bottom right, and half of it
    maps[1, 3, 0, 2] = 0.2  # too little
    maps[:, 1, 3, 4] = 9.0  # another word
    words = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]).float()

    mask = blend_mask(maps, words, (8, 8))

    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:2, :2] = True  # and its neighbours
    expected[2:, 2:] = True
    enlarged = expected.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(mask, enlarged)
    everywhere = blend_mask(maps, words, (4, 4), threshold=0.1)
    assert everywhere[3, 0] and not everywhere[0, 3]


def test_enlarged_maps_peak_at_one():
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 1] = 0.01
    maps[1] = 5.0

    large = enlarge_maps(maps, (16, 16))

    assert large.shape == (2, 16, 16)
    assert large[0, 4:8, 4:8].min() > 0.4 and large[0, 12, 12] < 0.05
    torch.testing.assert_close(large[1], torch.ones(16, 16), **EXACT)
