"""A mask beside a picture: read, checked, and cut like the picture."""

import numpy as np
import pytest
from PIL import Image

from mmhiper.datasets import SourceImageDataset, SquareCrop, load_mask

BOX = (24, 6, 36, 26)  # of the subject in a picture of 48 x 32


def subject() -> Image.Image:
    """A white subject on black: the picture and its mask in one."""
    image = Image.new('L', (48, 32))
    image.paste(255, BOX)
    return image


@pytest.fixture
def files(tmp_path):
    """The paths of a picture that is stored turned, and of its mask."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = subject().transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / 'photo.png', exif=exif)
    subject().save(tmp_path / 'mask.png')
    return str(tmp_path / 'photo.png'), str(tmp_path / 'mask.png')


def item(files, crop='center'):
    """The item of a picture with a mask."""
    photo, mask = files
    pipeline = [
        dict(type='mmhiper.LoadUprightImage'),
        dict(type='mmhiper.SquareCrop', crop=crop),
        dict(type='mmhiper.PackSourceImage'),
    ]
    return SourceImageDataset(img=photo, mask=mask, pipeline=pipeline)[0]


@pytest.mark.parametrize('crop', ['center', 'none', 'subject', (20, 0, 40, 9)])
def test_picture_and_mask_stay_together(files, crop):
    result = item(files, crop)

    mask = result['data_samples'].mask
    assert mask.shape == result['inputs'].shape[1:]
    assert 0 < (mask == 255).sum() < mask.numel()
    assert np.array_equal(result['inputs'][0], mask)


def test_a_crop_of_the_subject(files):
    left, top, size = item(files, 'subject')['data_samples'].crop_box

    # 20 pixels high with a tenth on each side, centred where it is
    assert (left, top, size) == (18, 4, 24)


def test_padding_is_no_subject():
    image = np.full((20, 30, 3), 200, np.uint8)
    results = SquareCrop('none')(dict(img=image))

    assert (results['img'] == 200).all()
    expected = np.zeros((30, 30))
    expected[5:25] = 255
    assert np.array_equal(results['mask'], expected)


def test_a_picture_that_counts_whole_has_no_mask():
    for crop in ('center', (0, 0, 10, 10)):
        assert 'mask' not in SquareCrop(crop)(dict(img=np.ones((20, 30, 3))))
    square = dict(img=np.ones((20, 20, 3), np.uint8))
    assert 'mask' not in SquareCrop('none')(square)


def test_masks_of_some_of_several_pictures(files, tmp_path):
    photo, mask = files
    dataset = SourceImageDataset(
        img=['photo.png'] * 2,
        mask=[None, 'mask.png'],
        data_root=str(tmp_path),
        pipeline=[
            dict(type='mmhiper.LoadUprightImage'),
            dict(type='mmhiper.PackSourceImage'),
        ],
    )

    assert 'mask' not in dataset[0]['data_samples']
    assert dataset[1]['data_samples'].mask.shape == (32, 48)
    with pytest.raises(ValueError, match=r'each of 2 images.*got 1'):
        SourceImageDataset(img=[photo, photo], mask=mask)


def grey_levels(image: Image.Image) -> Image.Image:
    """A transparent picture, opaque where it was bright."""
    result = Image.new('RGBA', image.size, 'white')
    result.putalpha(image)
    return result


@pytest.mark.parametrize(
    'save_as',
    [
        lambda image: image.convert('1'),
        lambda image: image.convert('RGB'),
        lambda image: image.convert('P'),
        grey_levels,
    ],
)
def test_masks_of_any_mode(tmp_path, save_as):
    save_as(subject()).save(tmp_path / 'mask.png')

    mask = load_mask(tmp_path / 'mask.png', (48, 32))

    assert np.array_equal(mask, np.asarray(subject()))


def test_a_mask_of_jpeg_is_black_and_white(tmp_path):
    subject().convert('RGB').save(tmp_path / 'mask.jpg', quality=50)

    mask = load_mask(tmp_path / 'mask.jpg', (48, 32)).astype(int)

    assert np.abs(mask - np.asarray(subject())).mean() < 8


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (subject().resize((24, 16)), '48 x 32.*24 x 16. Scale the mask'),
        (subject().rotate(90, expand=True), '48 x 32.*32 x 48. Turn the mask'),
        (Image.new('L', (48, 32)), 'no subject: its brightest pixel is 0'),
        (Image.new('L', (48, 32), 1), 'brightest pixel is 1,.* label map'),
        (Image.new('RGB', (48, 32), 'red'), 'has colours. Is it the picture'),
    ],
)
def test_what_is_no_mask_is_refused(files, mask, message):
    mask.save(files[1])

    with pytest.raises(ValueError, match=message):
        item(files)


def test_a_missing_mask(files):
    with pytest.raises(FileNotFoundError, match=r'none\.png'):
        item((files[0], 'none.png'))


def test_a_crop_without_the_subject(files):
    with pytest.raises(ValueError, match=r'photo\.png.*nothing of the sub'):
        item(files, (0, 0, 20, 20))


def test_a_crop_of_the_subject_wants_a_mask():
    with pytest.raises(ValueError, match=r"'subject'.*a\.png.*no mask"):
        SquareCrop('subject')(dict(img=np.ones((4, 4, 3)), img_path='a.png'))
