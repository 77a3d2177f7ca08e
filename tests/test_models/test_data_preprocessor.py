"""From bytes to what the model sees."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import at_step, batch_of, picture

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
    # Pillow rounds to whole levels twice, once for each direction
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


def masked(image, mask, **options):
    """The preprocessed element of a picture with a mask."""
    data = batch_of([image], [0])
    data['data_samples'][0].set_data(dict(mask=mask))
    result = ImagePreprocessor(**options)(data, training=True)
    return result['inputs'][0], result['data_samples'][0]


def test_a_mask_is_resized_softly_with_its_picture():
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[:, :6] = 255

    _, sample = masked(picture(0, 16), mask, size=4)

    # six of sixteen columns are one and a half of four
    expected = torch.tensor([1, 0.5, 0, 0]).expand(4, 4)
    assert torch.equal(sample.loss_mask, expected)
    assert torch.equal(sample.mask, mask)  # the dataset's own, as it was


def test_a_mask_is_mirrored_with_its_picture():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[:, :, :3] = 255
    mirrored = set()
    for iteration in range(8):
        at_step(iteration)
        pixels, sample = masked(image, image[0], size=8, random_flip=True)
        assert torch.equal(pixels[0], 2 * sample.loss_mask - 1)
        mirrored.add('mirrored' in sample.image_key)

    assert mirrored == {True, False}


def test_a_mask_does_not_rename_its_picture():
    mask = torch.full((80, 80), 255, dtype=torch.uint8)
    preprocess = ImagePreprocessor(size=8)
    (plain,) = preprocess(batch_of([picture(0)], [0]))['data_samples']

    assert masked(picture(0), mask, size=8)[1].image_key == plain.image_key
    assert 'loss_mask' not in plain


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (torch.ones(8, 6, dtype=torch.uint8), r'\(8, 8\).*\(8, 6\)'),
        (torch.ones(8, 8), 'float32'),
        (torch.zeros(8, 8, dtype=torch.uint8), 'must have a subject'),
    ],
)
def test_other_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        masked(picture(0, 8), mask, size=8)


def test_a_picture_is_prepared_once_with_its_mask(monkeypatch):
    """In a run a dataset hands over the same tensors at every iteration."""
    calls = []
    resize = ImagePreprocessor._to_model

    def counted(self, image):
        calls.append(image)
        return resize(self, image)

    monkeypatch.setattr(ImagePreprocessor, '_to_model', counted)
    preprocess = ImagePreprocessor(size=8)
    image, mask = picture(0), torch.full((80, 80), 255, dtype=torch.uint8)

    def prepare():
        data = batch_of([image], [0])
        data['data_samples'][0].set_data(dict(mask=mask))
        seen = preprocess(data, training=True)
        return seen['inputs'], seen['data_samples'][0].loss_mask

    first, again = prepare(), prepare()
    assert all(map(torch.equal, first, again)) and len(calls) == 1

    mask[:40] = 0  # changed in place
    changed = prepare()
    assert torch.equal(first[0], changed[0])
    assert changed[1].mean() == 0.5
    image.zero_()
    torch.testing.assert_close(prepare()[0], torch.full((1, 3, 8, 8), -1.0))
