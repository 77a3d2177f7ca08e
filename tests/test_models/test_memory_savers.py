"""The switches that save memory change no result."""

import pytest
import torch
from inversion import make as make_inversion
from tiny import (
    at_step,
    batch_of,
    make_hiper,
    make_word,
    picture,
    pipeline_of,
    randomise,
)
from tolerances import EXACT

from mmhiper.models import StableDiffusion


def config(folder, **switches) -> dict:
    return dict(type='StableDiffusion', pretrained=str(folder), **switches)


def step(make, folder, device='cpu', **switches):
    """Loss and gradient of a training step."""
    editor = make(folder, sd=config(folder, **switches))
    randomise(editor)
    editor.to(device)
    at_step(0)
    data = batch_of([picture(0)], [0])
    data['data_samples'][0].set_metainfo(dict(prompts=['a <cat-toy>']))
    loss = editor(**editor.data_preprocessor(data), mode='loss')['loss']
    loss.backward()
    (weight,) = editor.parameters()
    return loss.detach().cpu(), weight.grad.cpu()


def draw(folder, device='cpu', **switches):
    editor = make_hiper(folder, sd=config(folder, **switches)).to(device)
    return editor.infer(
        'a cat',
        height=128,
        width=96,
        num_inference_steps=2,
        show_progress=False,
        return_type='tensor',
    )['samples']


# -------------------------------------------------------------------- tiling
@pytest.mark.usefixtures('float64')
def test_tiles_are_those_of_the_pipeline(tiny_sd1):
    editor = make_hiper(tiny_sd1, sd=config(tiny_sd1, vae_tiling=True))
    pipeline = pipeline_of(tiny_sd1)
    pipeline.vae.enable_tiling()
    latents = torch.randn(
        (1, *editor.sd.latent_shape(128, 96)),
        generator=torch.Generator().manual_seed(5),
    )
    sizes = []
    editor.sd.vae.decoder.register_forward_hook(
        lambda module, args, output: sizes.append(max(args[0].shape[-2:]))
    )

    ours = editor.sample(
        editor.sd.encode_text(['a cat']),
        num_inference_steps=2,
        latents=latents,
        height=128,
        width=96,
    )
    theirs = pipeline(
        'a cat',
        num_inference_steps=2,
        latents=latents,
        height=128,
        width=96,
        output_type='pt',
    ).images

    torch.testing.assert_close(ours / 2 + 0.5, theirs, **EXACT)
    assert len(sizes) > 1
    assert max(sizes) == 8  # of 16 latents
    assert not torch.allclose(ours, draw(tiny_sd1), atol=1e-3)


# ------------------------------------------------------------------- offload
@pytest.mark.parametrize('make', [make_hiper, make_word])
def test_offload_changes_no_training_step(tiny_folder, make):
    loss, gradient = step(make, tiny_folder, offload=True)

    expected = step(make, tiny_folder)
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient, expected[1])
    assert gradient.any()


def test_offload_changes_no_picture(tiny_sdxl):
    assert torch.equal(draw(tiny_sdxl, offload=True), draw(tiny_sdxl))


def test_idle_parts_stay_at_home_and_compute_on_the_device(tiny_folder):
    """The device is 'meta', which every machine has."""
    sd = StableDiffusion(str(tiny_folder), offload=True)
    before = {name: w.clone() for name, w in sd.state_dict().items()}
    seen = []

    def watch(module, args, output):
        seen.append(next(module.parameters()).device.type)

    for part in (*sd.text_encoders.models, sd.vae.encoder, sd.vae.decoder):
        part.register_forward_hook(watch)
    sd.to('meta')
    home = {name: device.type for name, device in sd.devices.items()}

    text = sd.encode_text(['a dog'])
    latents = sd.encode_image(torch.zeros(1, 3, 64, 64))
    output = sd.predict(latents, torch.tensor(5, device='meta'), text)
    pixels = sd.decode(output)

    assert home == dict(text_encoders='cpu', vae='cpu', unet='meta')
    assert seen == ['meta'] * (len(sd.text_encoders) + 2)
    for result in (text.tokens, latents, output, pixels):
        assert result.device.type == 'meta'
    assert {name: d.type for name, d in sd.devices.items()} == home
    for name, weight in sd.state_dict().items():
        if not name.startswith('unet.'):
            assert torch.equal(weight, before[name]), name


def test_without_offload_everything_moves(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1)).to('meta')

    assert {device.type for device in sd.devices.values()} == {'meta'}


@pytest.mark.usefixtures('float64')
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('make', [make_hiper, make_word])
def test_offload_on_cuda(tiny_folder, make):
    loss, gradient = step(make, tiny_folder, 'cuda', offload=True)

    expected = step(make, tiny_folder, 'cuda')
    torch.testing.assert_close(loss, expected[0], **EXACT)
    torch.testing.assert_close(gradient, expected[1], **EXACT)
    torch.testing.assert_close(
        draw(tiny_folder, 'cuda', offload=True),
        draw(tiny_folder, 'cuda'),
        **EXACT,
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_offload_leaves_only_the_unet_on_cuda(tiny_sdxl):
    editor = make_hiper(tiny_sdxl, sd=config(tiny_sdxl, offload=True))
    start = torch.cuda.memory_allocated()
    editor.to('cuda')
    idle = torch.cuda.memory_allocated() - start
    editor.infer('a cat', num_inference_steps=1, show_progress=False)

    unet = sum(
        w.numel() * w.element_size() for w in editor.sd.unet.parameters()
    )
    assert idle < 1.5 * unet + 2**20
    assert {name: d.type for name, d in editor.sd.devices.items()} == dict(
        text_encoders='cpu', vae='cpu', unet='cuda'
    )


# ------------------------------------------------------------- checkpointing
@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('make', [make_hiper, make_word])
def test_checkpointing_gives_the_same_gradient(tiny_folder, make):
    loss, gradient = step(make, tiny_folder, gradient_checkpointing=True)

    expected = step(make, tiny_folder)
    assert torch.equal(loss, expected[0])
    torch.testing.assert_close(gradient, expected[1], **EXACT)
    assert gradient.any()


@pytest.mark.parametrize(('switch', 'calls'), [(False, 1), (True, 2)])
def test_checkpointing_computes_twice_in_training_alone(
    tiny_sd1, switch, calls
):
    sd = StableDiffusion(str(tiny_sd1), gradient_checkpointing=switch)
    seen = []
    sd.unet.mid_block.resnets[1].register_forward_pre_hook(
        lambda *_: seen.append(1)
    )
    text = sd.encode_text(['a cat'])
    z, t = torch.zeros(1, 4, 8, 8), torch.tensor(5)
    with torch.no_grad():
        sd.predict(z, t, text)
    assert len(seen) == 1

    seen.clear()
    text = text.with_tokens(text.tokens.requires_grad_())
    sd.predict(z, t, text).sum().backward()
    assert len(seen) == calls


def test_checkpointing_is_refused_where_attention_is_changed(tiny_sd1):
    with pytest.raises(ValueError, match='would not repeat'):
        make_inversion(
            tiny_sd1,
            'NullTextInversion',
            sd=config(tiny_sd1, gradient_checkpointing=True),
        )
