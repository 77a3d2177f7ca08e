"""From bytes to what the model sees."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import batch_of, picture

from mmhiper.models import ImagePreprocessor


def test_range_and_size():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    image[0] = 255

    inputs = ImagePreprocessor(size=4)(dict(inputs=[image]))['inputs']

    assert inputs.shape == (1, 3, 4, 4)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs[0, 0], torch.ones(4, 4))
    assert torch.equal(inputs[0, 1], -torch.ones(4, 4))


@pytest.mark.parametrize(('before', 'after'), [(64, 16), (16, 64)])
def test_resampling_is_that_of_pillow(before, after):
    # smooth, so that no value is clamped on the way
    ramp = torch.linspace(20, 230, before)
    image = torch.stack([ramp.expand(before, before)] * 3).to(torch.uint8)

    inputs = ImagePreprocessor(size=after)(dict(inputs=[image]))['inputs']

    ours = (inputs[0, 0].numpy() + 1) * 127.5
    pillow = Image.fromarray(image[0].numpy()).resize(
        (after, after), Image.Resampling.BICUBIC
    )
    assert np.abs(ours - np.asarray(pillow)).max() < 1.5


def test_pictures_of_several_sizes_make_one_batch():
    data = batch_of([picture(0, 40), picture(1, 16)], [0, 1])

    result = ImagePreprocessor(size=16)(data)

    assert result['inputs'].shape == (2, 3, 16, 16)
    assert result['inputs'].abs().max() <= 1
    assert [s.image_index for s in result['data_samples']] == [0, 1]


def test_a_stacked_batch_is_the_same_as_a_list():
    pictures = [picture(0, 16), picture(1, 16)]
    preprocess = ImagePreprocessor(size=8)

    listed = preprocess(batch_of(pictures, [0, 1]))
    stacked = preprocess(dict(inputs=torch.stack(pictures)))

    assert torch.equal(listed['inputs'], stacked['inputs'])
    assert [s.image_key for s in listed['data_samples']] == [
        s.image_key for s in stacked['data_samples']
    ]


def test_a_key_names_the_content():
    preprocess = ImagePreprocessor(size=8)

    def key(image):
        return preprocess(dict(inputs=[image]))['data_samples'][0].image_key

    image = picture(0)
    assert key(image) == key(image.clone())
    assert key(image) != key(picture(1))
    before = key(image)
    image[0, 0, 0] ^= 1  # a change in place is seen, too
    assert key(image) != before


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (torch.zeros(1, 8, 8, dtype=torch.uint8), r'\(1, 8, 8\)'),
        (torch.zeros(3, 8, 8), 'float32'),
        (torch.zeros(3, 8, 6, dtype=torch.uint8), '6 x 8.*SquareCrop'),
    ],
)
def test_other_shapes_and_types_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        ImagePreprocessor(size=8)(dict(inputs=[image]))
