"""From an image file to what an editor takes."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmhiper.datasets import PackSourceImage, SourceImageDataset, SquareCrop
from mmhiper.registry import DATASETS

PIPELINE = [
    dict(type='mmhiper.LoadUprightImage'),
    dict(type='mmhiper.SquareCrop'),
    dict(type='mmhiper.PackSourceImage'),
]


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose channels 0 and 1 say row and column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)
    return image


@pytest.mark.parametrize(
    ('shape', 'corner'), [((20, 31), (0, 5)), ((30, 20), (5, 0))]
)
def test_square_crop_is_centred(shape, corner):
    results = SquareCrop()(dict(img=ramp(*shape)))

    assert results['img'].shape == (20, 20, 3)
    assert tuple(results['img'][0, 0, :2]) == corner
    assert results['crop_box'] == (corner[1], corner[0], 20)


@pytest.mark.parametrize(
    ('crop', 'square'),
    [
        ((3, 4, 13, 14), (3, 4, 10)),  # a square is taken as it is
        ((10, 5, 14, 15), (7, 5, 10)),  # another box grows about its centre,
        ((0, 5, 4, 15), (0, 5, 10)),  # moved into the image
        ((26, 5, 30, 15), (20, 5, 10)),
        ('center', (5, 0, 20)),
        ('none', (0, -5, 30)),
        ((0, 0, 25, 20), (0, -3, 25)),  # or beyond it where it is too long
    ],
)
def test_the_square_of_a_crop(crop, square):
    results = SquareCrop(crop)(dict(img=ramp(20, 30)))

    left, top, size = square
    assert results['crop_box'] == square
    rows = np.clip(np.arange(top, top + size), 0, 19)
    columns = np.clip(np.arange(left, left + size), 0, 29)
    expected = ramp(20, 30)[rows][:, columns]  # edges go on beyond the image
    assert np.array_equal(results['img'], expected)


@pytest.mark.parametrize(
    'crop',
    [(1, 2), (0, 0, 0, 4), (4, 0, 4, 4), (0.5, 0, 4, 4), (-1, 0, 5, 5)]
    + ['middle', '1,2,3,4', 5, None],
)
def test_other_crops_are_refused(crop):
    with pytest.raises(ValueError, match=r"'subject'.*\(x0, y0, x1, y1\)"):
        SquareCrop(crop)


@pytest.mark.parametrize('crop', [(21, 0, 31, 5), (0, 11, 5, 21)])
def test_a_crop_box_lies_in_the_image(crop):
    with pytest.raises(ValueError, match=r'a\.png.*30 x 20 pixels'):
        SquareCrop(crop)(dict(img=ramp(20, 30), img_path='a.png'))


def test_pack():
    packed = PackSourceImage()(
        dict(img=ramp(6, 4), img_path='a.png', image_index=2)
    )

    assert packed['inputs'].shape == (3, 6, 4)
    assert packed['inputs'].dtype == torch.uint8
    assert packed['inputs'][1, 5].tolist() == [0, 1, 2, 3]
    assert packed['data_samples'].image_index == 2
    assert packed['data_samples'].img_path == 'a.png'


def test_dataset_of_several_images(tmp_path):
    for number, size in enumerate([8, 12]):
        Image.fromarray(ramp(size, size + 4)).save(tmp_path / f'{number}.png')

    dataset = DATASETS.build(
        dict(
            type='mmhiper.SourceImageDataset',
            img=['0.png', '1.png'],
            data_root=str(tmp_path),
            pipeline=PIPELINE,
        )
    )

    assert len(dataset) == 2
    assert [item['inputs'].shape[-1] for item in dataset] == [8, 12]
    assert [item['data_samples'].image_index for item in dataset] == [0, 1]
    assert dataset.metainfo == dict(dataset_type='source_image')


def test_file_is_read_once(tmp_path):
    path = tmp_path / 'image.png'
    Image.fromarray(ramp(8, 8)).save(path)
    dataset = SourceImageDataset(img=str(path), pipeline=PIPELINE)

    path.unlink()

    assert dataset[0] is dataset[0]


def test_bad_images_are_reported_when_the_dataset_is_built(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.png'):
        SourceImageDataset(img=str(tmp_path / 'none.png'), pipeline=PIPELINE)
    with pytest.raises(ValueError, match='at least one source image'):
        SourceImageDataset(img=[], pipeline=PIPELINE)
