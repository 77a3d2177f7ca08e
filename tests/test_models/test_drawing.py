"""Pictures of a conditioning, as editors, previews and doctor draw them."""

import pytest
import torch

from mmhiper.models import StableDiffusion
from mmhiper.models.drawing import (
    draw,
    draw_latents,
    latent_shape,
    same_noise,
)
from mmhiper.models.guidance import NONE, Guidance


@pytest.fixture
def sd(tiny_sd1):
    return StableDiffusion(str(tiny_sd1))


def test_sizes_are_multiples_of_the_factor(sd):
    assert latent_shape(sd) == (4, 8, 8)
    assert latent_shape(sd, 32, 48) == (4, 4, 6)
    for size in ((60, None), (None, 0)):
        with pytest.raises(ValueError, match='multiples of 8'):
            latent_shape(sd, *size)
    text = sd.encode_text(['a dog'])
    with pytest.raises(ValueError, match='must have the shape'):
        draw(sd, text, Guidance(NONE), latents=torch.zeros(1, 4, 8, 4))


def test_pictures_of_the_same_noise_differ_by_their_texts_alone(sd):
    noise = same_noise(sd, 3, seed=7)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise, same_noise(sd, 3, seed=8))

    texts = sd.encode_text(['a dog', 'a cat', 'a dog'])
    drawn = draw(
        sd, texts, Guidance(3.0), latents=noise, num_inference_steps=2
    )

    assert torch.allclose(drawn[0], drawn[2], atol=1e-5)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_a_picture_is_its_latents_decoded_and_clamped(sd):
    text = sd.encode_text(['a dog'])
    options = dict(num_inference_steps=2, seed=3)

    latents = draw_latents(sd, text, Guidance(NONE), **options)

    pixels = draw(sd, text, Guidance(NONE), **options)
    assert torch.equal(pixels, sd.decode(latents).clamp(-1, 1))
    # which of these numbers are infinite can be seen before that only
    with torch.no_grad():
        sd.vae.decoder.conv_out.bias.fill_(torch.inf)
    latents = draw_latents(sd, text, Guidance(NONE), **options)
    assert not sd.decode(latents).isfinite().all()
    assert draw(sd, text, Guidance(NONE), **options).isfinite().all()
