"""Pictures that are damaged, or larger than they look."""

import resource
import struct
import sys
import zlib

import pytest
from PIL import Image, PngImagePlugin
from runs import draw_image

from mmhiper.datasets import load_mask, load_upright_image
from mmhiper.io import read_picture_record
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.picture_files import is_picture
from mmhiper.utils.sheet import read_panels

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    crc = struct.pack('>I', zlib.crc32(name + data))
    return struct.pack('>I', len(data)) + name + data + crc


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file of a size that its pixels need not have."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = chunk(b'IDAT', zlib.compress(bytes(100)))
    return (
        SIGNATURE
        + chunk(b'IHDR', header)
        + b''.join(chunks)
        + data
        + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('read', [load_upright_image, read_picture_record])
@pytest.mark.parametrize('side', [10_001, 13_000, 60_000])
def test_more_pixels_than_are_read(tmp_path, recwarn, read, side):
    path = tmp_path / 'a.png'
    path.write_bytes(png(side, side))
    unit = 1 if sys.platform == 'darwin' else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    with pytest.raises(FileError, match=r'100 million pixels.*the limit') as e:
        read(path)

    assert 'MMHIPER_MAX_MEGAPIXELS' in str(e.value)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert after - before < 50e6  # of 300 MB and more
    assert not recwarn


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    path = draw_image(tmp_path / 'a.png', size=64)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv('MMHIPER_MAX_MEGAPIXELS', '0.004')
    with pytest.raises(FileError, match=r'more than 0\.004 million'):
        load_upright_image(path)

    monkeypatch.setenv('MMHIPER_MAX_MEGAPIXELS', '5000')
    assert load_upright_image(path).size == (64, 64)
    # as far as Pillow is concerned
    path.write_bytes(png(60_000, 60_000))
    assert is_picture(path)


HEADS = {
    'heic': (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC.*pillow-heif'),
    'avif': (b'\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf', 'AVIF.*pillow'),
    'jxl': (b'\xff\x0a' + bytes(30), 'JPEG XL'),
    'svg': (b'<?xml version="1.0"?>\n<svg xmlns=', 'SVG'),
    'pdf': (b'%PDF-1.7\n', 'PDF'),
    'mp4': (b'\0\0\0\x18ftypisom\0\0\0\0isomiso2', 'a video'),
    'html': (b'\n<!doctype html><html>', 'a web page'),
    'lfs': (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
    'json': (b'{"a": 1}', 'a JSON text'),
    'txt': ('ein Hündchen'.encode(), 'it is a text'),
    'zip': (b'PK\x03\x04', 'a ZIP archive'),
    'empty': (b'', 'an empty file'),
}


@pytest.mark.parametrize('name', HEADS)
def test_what_is_no_picture_here_is_named(tmp_path, monkeypatch, name):
    path = tmp_path / 'a.png'
    head, words = HEADS[name]
    path.write_bytes(head)
    is_picture(path)  # what is installed is known from now on
    for plugin in ('HEIF', 'AVIF', 'JXL'):  # as where they are not
        monkeypatch.delitem(Image.OPEN, plugin, raising=False)

    for read in (load_upright_image, read_picture_record):
        with pytest.raises(FileError, match=f'not an image.*{words}'):
            read(path)
    # one that people see is an error in a folder, and not passed over
    assert is_picture(path) == (name in ('heic', 'avif', 'jxl', 'svg'))


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_picture_without_pixels(tmp_path, kind):
    path = tmp_path / 'a'
    with Image.open(draw_image(tmp_path / 'b.png', size=64)) as image:
        image.save(path, kind)
    size, none = struct.pack('>HH', 64, 64), bytes(4)
    data = path.read_bytes().replace(size, none, 1)
    path.write_bytes(png(0, 0) if kind == 'PNG' else data)

    with pytest.raises(FileError, match=f'a {kind} picture.* of 0 or beyond'):
        load_upright_image(path)
    assert is_picture(path)


def test_a_limit_of_a_decoder_is_no_damage(tmp_path):
    path = tmp_path / 'a.png'
    text = b'Comment\0\0' + zlib.compress(bytes(100_000_000), 9)
    path.write_bytes(png(4, 4, chunk(b'zTXt', text)))

    with pytest.raises(FileError, match='larger than what is decoded') as e:
        load_upright_image(path)

    assert 'damaged' not in str(e.value)


def test_a_text_that_unpacks_to_gigabytes(tmp_path):
    path = tmp_path / 'a.png'
    text = b'Comment\0\0' + zlib.compress(bytes(100_000_000), 9)
    path.write_bytes(png(4, 4, chunk(b'zTXt', text)))

    for read in (load_upright_image, read_picture_record):
        with pytest.raises(FileError, match='cannot be read completely'):
            read(path)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'TIFF', 'WEBP', 'BMP'])
def test_a_picture_cut_anywhere(tmp_path, kind):
    path = tmp_path / 'a'
    with Image.open(draw_image(tmp_path / 'whole.png')) as image:
        image.save(path, kind)
    whole = path.read_bytes()

    for length in (0, 1, 8, 20, 25, 60, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            load_upright_image(path)
        with pytest.raises(UserError):
            load_mask(path, (64, 64))
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('text', ['{', '[]', '3', 'null', '"a"', '[' * 10**5])
def test_a_record_that_is_none(tmp_path, text):
    path = tmp_path / 'a.png'
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('mmhiper', text)
    Image.new('RGB', (4, 4)).save(path, pnginfo=chunks)

    with pytest.raises(FileError, match=r'a\.png.* record'):
        read_picture_record(path)


@pytest.mark.parametrize(
    'text',
    ['', '{', '3', '[]', '[[1, 2]]', '[["a", [0, 0, 4, 4.5]]]']
    + ['[["a", [0, 0, 9, 4]]]', '[["a", [2, 0, 1, 4]]]', '[["a", "0044"]]']
    + [f'[{", ".join(["[1, [0, 0, 4, 4]]"] * 2)}]']
    + [f'[{", ".join(["[" + chr(34) * 2 + ", [0, 0, 4, 4]]"] * 2)}]'],
)
def test_a_sheet_that_says_nothing_of_use(tmp_path, text):
    path = tmp_path / 'a.png'
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('panels', text)
    Image.new('RGB', (4, 4)).save(path, pnginfo=chunks)

    with pytest.raises(FileError, match=r'a\.png.*panels'):
        read_panels(path)
