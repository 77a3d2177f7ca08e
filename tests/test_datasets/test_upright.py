"""Loading any picture upright, and refusing what is none."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from mmhiper.datasets import (
    LoadUprightImage,
    load_mask,
    load_upright_image,
)

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


# ---------------------------------------- fewer bits than the file has room
RAMP = np.linspace(0, 1, 64).reshape(8, 8)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)


def write_png(path, values, significant=()):
    """A PNG file of 16 bits a channel, which Pillow does not write."""

    def chunk(name, data):
        crc = struct.pack('>I', zlib.crc32(name + data))
        return struct.pack('>I', len(data)) + name + data + crc

    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.size // (height * width)]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    header = struct.pack('>IIBBBBB', width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + (chunk(b'sBIT', bytes(significant)) if significant else b'')
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )


def read_quietly(path):
    """The pixels of a picture about which there is nothing to say."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        return np.asarray(load_upright_image(path))


def close(pixels, wanted):
    """Whether 8 bits are those of values in [0, 1], to the nearest."""
    wanted = wanted if wanted.ndim == 3 else wanted[..., None]
    # half a step of 8 bits, and half of the stored ones
    return abs(pixels / 255 - wanted).max() <= 0.5 / 255 + 0.5 / 1023


@pytest.mark.parametrize('bits', [10, 12, 14])
@pytest.mark.parametrize('values', [RAMP, COLOURS], ids=['grey', 'colour'])
def test_png_says_how_many_of_its_bits_count(tmp_path, bits, values):
    path = tmp_path / 'scan.png'
    stored = np.rint(values * (2**bits - 1)).astype(np.uint16)
    write_png(path, stored, [bits] * (values.size // 64))

    assert close(read_quietly(path), values)


def test_png_that_is_scaled_as_the_format_wants_it(tmp_path):
    twelve = np.rint(COLOURS * 4095).astype(np.uint16)
    for stored in (twelve << 4, twelve << 4 | twelve >> 8):
        for values in (stored, stored[..., 0]):
            write_png(tmp_path / 'a.png', values, [12] * (values.ndim * 2 - 3))
            write_png(tmp_path / 'b.png', values)
            assert np.array_equal(
                read_quietly(tmp_path / 'a.png'),
                read_quietly(tmp_path / 'b.png'),
            )
    # also where the picture is dark
    write_png(tmp_path / 'a.png', (twelve >> 4) << 4, [12] * 3)
    with pytest.warns(UserWarning, match='almost black'):
        load_upright_image(tmp_path / 'a.png')


def test_transparency_of_16_bits(tmp_path):
    path = tmp_path / 'a.png'
    stored = np.rint(COLOURS * 4095).astype(np.uint16)
    clear = np.zeros((8, 8, 1), np.uint16)
    clear[:4] = 4095
    write_png(path, np.concatenate([stored, clear], 2), [12] * 4)

    pixels = read_quietly(path)

    assert close(pixels[:4], COLOURS[:4])
    assert (pixels[4:] == 255).all()


@pytest.mark.parametrize('turn', [1, 3, 6])
def test_bits_and_orientation(tmp_path, turn):
    path = tmp_path / 'a.png'
    write_png(path, np.rint(COLOURS * 4095).astype(np.uint16), [12] * 3)
    data = path.read_bytes()
    exif = b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0'
    exif += bytes([turn]) + bytes(6)
    body = b'eXIf' + exif
    chunk = struct.pack('>I', len(exif)) + body
    chunk += struct.pack('>I', zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])

    wanted = {1: COLOURS, 3: COLOURS[::-1, ::-1], 6: np.rot90(COLOURS, -1)}
    assert close(read_quietly(path), wanted[turn])


def tags(**values):
    """Tags of a TIFF file by their numbers."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in values.items():
        tag = int(name[1:])
        if tag > 300:
            directory.tagtype[tag] = 11 if isinstance(value, float) else 9
        directory[tag] = value
    return directory


@pytest.mark.parametrize(
    ('scale', 'shift', 'dtype', 'said'),
    [
        (4095, 0, np.uint16, tags(_281=4095)),
        (4095, 0, np.int32, tags(_280=0, _281=4095)),
        (2**20, 0, np.int32, tags(_341=2**20)),
        (4095, -2048, np.int32, tags(_340=-2048, _341=2047)),
        (255, 0, np.float32, tags(_341=255.0)),
    ],
)
def test_tiff_says_its_range(tmp_path, scale, shift, dtype, said):
    path = tmp_path / 'scan.tif'
    stored = np.rint(RAMP * scale + shift).astype(dtype)
    Image.fromarray(stored).save(path, tiffinfo=said)

    assert close(read_quietly(path), RAMP)


def test_a_range_that_is_not_kept_is_no_range(tmp_path):
    path = tmp_path / 'scan.tif'
    stored = np.rint(RAMP * 65535).astype(np.uint16)
    Image.fromarray(stored).save(path, tiffinfo=tags(_281=4095))

    assert close(read_quietly(path), RAMP)


def test_tiff_of_12_bits(tmp_path):
    path = tmp_path / 'scan.tif'
    values = np.rint(RAMP * 4095).astype(int).ravel().tolist()
    pairs = zip(values[::2], values[1::2], strict=True)
    data = b''.join(((a << 12) | b).to_bytes(3, 'big') for a, b in pairs)
    entries = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1)]
    entries += [(273, 200), (277, 1), (278, 8), (279, len(data))]
    head = struct.pack('<2sHIH', b'II', 42, 8, len(entries))
    for tag, value in entries:
        head += struct.pack('<HHII', tag, 4, 1, value)
    path.write_bytes((head + bytes(4)).ljust(200, b'\0') + data)

    assert close(read_quietly(path), RAMP)


def test_full_16_bits_of_colour_stay(tmp_path):
    stored = np.rint(COLOURS * 65535).astype(np.uint16)
    write_png(tmp_path / 'a.png', stored)
    cv2.imwrite(str(tmp_path / 'b.tif'), stored[..., ::-1])

    for name in ('a.png', 'b.tif'):
        assert np.array_equal(read_quietly(tmp_path / name), stored >> 8)


# ------------------------------------------------------ what a picture hides
def test_next_to_nothing_to_see_is_said(tmp_path):
    stored = np.rint(RAMP * 4095)
    write_png(tmp_path / 'grey.png', stored.astype(np.uint16))
    write_png(tmp_path / 'rgb.png', np.rint(COLOURS * 4095).astype(np.uint16))
    Image.fromarray(stored.astype(np.int32)).save(tmp_path / 'int.tif')
    bright = np.rint(RAMP * 255).astype(np.int32)
    Image.fromarray(bright).save(tmp_path / 'int8.tif')
    for name in ('grey.png', 'rgb.png', 'int.tif', 'int8.tif'):
        with pytest.warns(UserWarning, match=rf'{name}.*black.*save it with'):
            load_upright_image(tmp_path / name)

    Image.new('RGBA', (64, 64)).save(tmp_path / 'clear.png')
    with pytest.warns(UserWarning, match=r'clear\.png.*almost white'):
        load_upright_image(tmp_path / 'clear.png')


def test_a_small_subject_is_enough(tmp_path):
    for ground in (0, 255):
        image = Image.new('L', (64, 64), ground)
        image.paste(255 - ground, (8, 8, 14, 14))  # 0.9 % of the pixels
        image.save(tmp_path / 'a.png')
        read_quietly(tmp_path / 'a.png')

    # and a mask may be darker still
    mask = Image.new('L', (64, 64))
    mask.putpixel((5, 5), 255)
    mask.save(tmp_path / 'mask.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert load_mask(tmp_path / 'mask.png', (64, 64)).sum() == 255


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG', 'TIFF'])
def test_of_several_pictures_the_first_is_read_and_that_is_said(
    tmp_path, kind
):
    first, second = quadrants(), Image.new('RGB', (48, 32), (90, 9, 9))
    options = {'lossless': True} if kind == 'WEBP' else {}
    path = tmp_path / 'a'
    first.save(path, kind, save_all=True, append_images=[second], **options)

    with pytest.warns(UserWarning, match='has 2 frames or pages'):
        image = load_upright_image(path)

    assert np.array_equal(np.asarray(image), np.asarray(first))


def test_the_preview_in_a_raw_file_is_no_picture(tmp_path):
    quadrants().save(tmp_path / 'a.tif', tiffinfo={254: 1})

    with pytest.raises(ValueError, match=r'small preview.*Develop it'):
        load_upright_image(tmp_path / 'a.tif')


@pytest.mark.skipif(not features.check('avif'), reason='Pillow without AVIF')
def test_avif(tmp_path):
    quadrants().save(tmp_path / 'a.avif', quality=100, subsampling='4:4:4')

    pixels = read_quietly(tmp_path / 'a.avif').astype(int)

    assert abs(pixels - np.asarray(quadrants())).max() < 12  # of the codec


@pytest.mark.parametrize('depth', [8, 10])
def test_heic_where_it_can_be_read(tmp_path, depth):
    pillow_heif = pytest.importorskip('pillow_heif')
    path = tmp_path / 'IMG_0001.HEIC'
    pixels = np.asarray(quadrants())
    mode, stored = 'RGB', pixels
    if depth == 10:
        mode, stored = 'RGB;10', (pixels.astype(np.uint16) * 257) >> 6
    file = pillow_heif.from_bytes(mode, (48, 32), stored.tobytes())
    file.save(path, quality=-1, chroma=444)

    read = read_quietly(path).astype(int)

    assert abs(read - pixels).max() < 12  # of the codec


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
