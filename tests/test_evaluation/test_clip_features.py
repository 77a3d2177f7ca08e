"""CLIP features; the bundled model has a pair trained on its world."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from runs import REPO
from tolerances import EPS

from mmhiper.evaluation import ClipFeatures
from mmhiper.models import StableDiffusion


@pytest.fixture(scope='module')
def features():
    return ClipFeatures(StableDiffusion('mini-sd'))


def drawings(place):
    """Four drawings of the mini world in one place."""
    sys.path.insert(0, str(REPO / 'tools' / 'mini_sd'))
    from world import Scene, draw, sample_individual

    return [
        draw(
            Scene(
                sample_individual(np.random.default_rng([9, k]), 'dog'),
                'sitting',
                place,
                layout=k,
            ),
            128,
        )
        for k in range(4)
    ]


def test_features_have_length_one(features):
    images = features.images([Image.new('RGB', (200, 100), 'red')] * 2)
    texts = features.texts(['a dog', 'a cat at night', ''])

    assert images.shape == (2, 128)
    assert texts.shape == (3, 128)
    for each in (images, texts):
        # the squares of 128 numbers of single precision add up
        torch.testing.assert_close(
            each.norm(dim=1), torch.ones(len(each)), rtol=0, atol=128 * EPS
        )


def test_pictures_are_nearest_to_their_own_place(features):
    texts = features.texts(['a dog sitting at night', 'a dog sitting in snow'])

    night = features.images(drawings('night')) @ texts.T
    snow = features.images(drawings('snow')) @ texts.T
    assert (night[:, 0] > night[:, 1]).all()
    assert (snow[:, 1] > snow[:, 0]).all()


def test_a_backbone_without_an_image_encoder_says_what_to_do(tiny_sd1):
    with pytest.raises(ValueError, match='Name a CLIP model'):
        ClipFeatures(StableDiffusion(str(tiny_sd1)))


def test_a_clip_that_cannot_be_loaded_is_an_error(tiny_sd1):
    with pytest.raises(ValueError, match='Cannot load the CLIP model'):
        ClipFeatures(StableDiffusion(str(tiny_sd1)), 'nobody/nothing')


def test_a_whole_clip_model_serves_any_backbone(tiny_sd1, tmp_path):
    import transformers

    width = dict(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    sd = StableDiffusion(str(tiny_sd1))
    vocabulary = dict(
        vocab_size=sd.vocabulary.size,
        bos_token_id=sd.tokenizer.bos_token_id,
        eos_token_id=sd.tokenizer.eos_token_id,
    )
    config = transformers.CLIPConfig(
        text_config={**width, **vocabulary},
        vision_config=dict(width, image_size=32, patch_size=16),
        projection_dim=8,
    )
    model = transformers.CLIPModel(config)
    model.save_pretrained(tmp_path)
    transformers.CLIPProcessor(
        transformers.CLIPImageProcessor(
            size=dict(shortest_edge=32), crop_size=dict(height=32, width=32)
        ),
        sd.tokenizer,
    ).save_pretrained(tmp_path)

    features = ClipFeatures(sd, str(tmp_path))
    texts = features.texts(['a dog', 'a cat'])
    images = features.images([Image.new('RGB', (64, 64), 'red')])
    assert texts.shape == (2, 8)
    assert images.shape == (1, 8)
    ids = sd.tokenizer(['a dog', 'a cat'], padding=True, return_tensors='pt')
    expected = model.eval().get_text_features(**ids)
    expected = getattr(expected, 'pooler_output', expected)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    # one layer of sums of up to 32 numbers, and nothing is amplified
    torch.testing.assert_close(texts, expected, rtol=0, atol=100 * EPS)
