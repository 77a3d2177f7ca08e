"""Loading any picture upright, and refusing what is none."""

import io

import numpy as np
import pytest
from PIL import Image

from mmhiper.datasets import LoadUprightImage, load_upright_image

# What to do to an upright picture to store it under an EXIF orientation.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def quadrants() -> Image.Image:
    """A picture whose four corners tell its orientation, 48 x 32."""
    image = Image.new('RGB', (48, 32), (255, 0, 0))
    image.paste((0, 255, 0), (24, 0, 48, 16))
    image.paste((0, 0, 255), (0, 16, 24, 32))
    image.paste((255, 255, 255), (24, 16, 48, 32))
    return image


@pytest.mark.parametrize('orientation', STORED_AS)
def test_jpeg_is_turned_upright(tmp_path, orientation):
    image = quadrants()
    if STORED_AS[orientation] is not None:
        image = image.transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'photo.jpg'
    image.save(path, exif=exif, quality=100, subsampling=0)

    loaded = np.asarray(load_upright_image(path)).astype(int)

    expected = np.asarray(quadrants()).astype(int)
    assert loaded.shape == expected.shape
    assert abs(loaded - expected).max() < 12  # JPEG


@pytest.mark.parametrize(
    'mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'YCbCr']
)
def test_modes_become_rgb(tmp_path, mode):
    grey = Image.new('L', (8, 8), 0)
    grey.paste(255, (4, 0, 8, 8))
    path = tmp_path / ('image.tif' if mode in ('CMYK', 'YCbCr') else 'i.png')
    source = grey.convert('RGB').convert(mode)
    source.save(path)

    loaded = load_upright_image(path)

    assert loaded.mode == 'RGB'
    left, right = loaded.getpixel((1, 1)), loaded.getpixel((6, 6))
    assert max(left) <= 2 and min(right) >= 253


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparency_becomes_white(tmp_path, mode):
    image = Image.new('RGBA', (4, 4), (200, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 2, 4))
    path = tmp_path / 'image.png'
    image.convert(mode).save(path)

    loaded = load_upright_image(path)

    assert loaded.getpixel((0, 0)) == (0, 0, 0)
    assert loaded.getpixel((3, 3)) == (255, 255, 255)


def test_half_transparent_black_is_mid_grey(tmp_path):
    path = tmp_path / 'image.png'
    Image.new('RGBA', (4, 4), (0, 0, 0, 128)).save(path)

    assert load_upright_image(path).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bit_grey_keeps_its_range(tmp_path, suffix):
    path = tmp_path / f'scan.{suffix}'
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(path)

    loaded = np.asarray(load_upright_image(path))

    assert loaded[0, :, 0].tolist() == [0, 128, 255]


def test_floating_point_grey(tmp_path):
    path = tmp_path / 'scan.tif'
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(path)

    assert np.asarray(load_upright_image(path))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    Image.fromarray(np.array([[0, 90.5]], dtype=np.float32)).save(path)
    with pytest.raises(ValueError, match=r'values in \[0, 1\].*90\.5'):
        load_upright_image(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.png.*does not exist'):
        load_upright_image(tmp_path / 'none.png')


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(ValueError, match='is a folder'):
        load_upright_image(tmp_path)


@pytest.mark.parametrize('content', [b'', b'hello, I am not a picture'])
def test_not_an_image(tmp_path, content):
    path = tmp_path / 'photo.png'
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r'photo\.png.*not an image'):
        load_upright_image(path)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_truncated_image(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / 'photo'
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])

    with pytest.raises(ValueError, match='cannot be read completely'):
        load_upright_image(path)


def test_transform(tmp_path):
    path = tmp_path / 'image.png'
    quadrants().save(path)

    results = LoadUprightImage()(dict(img_path=str(path)))

    assert results['img'].dtype == np.uint8
    assert results['img'].shape == (32, 48, 3)
    assert results['ori_shape'] == (32, 48)
    assert np.array_equal(results['img'], np.asarray(quadrants()))
