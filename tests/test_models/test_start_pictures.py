"""Pictures to begin with, as they are read and cut."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from tolerances import EPS

from mmhiper.models.sampling import Start
from mmhiper.models.start_pictures import read_start

SIZE = (32, 32)


def start(image, mask=None, denoise=0.5, count=1, size=SIZE, factor=8):
    return read_start(image, mask, denoise, count, size, factor)


def noise(height=32, width=32):
    rng = np.random.default_rng(0)
    return Image.fromarray(
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def test_a_picture_is_the_same_however_it_is_given(tmp_path):
    image = noise()
    image.save(tmp_path / 'a.png')
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)

    read = start(str(tmp_path / 'a.png')).picture

    assert read.shape == (1, 3, 32, 32)
    # one rounding of numbers up to 255
    exact = dict(rtol=0, atol=4 * EPS)
    torch.testing.assert_close(read[0], pixels / 127.5 - 1, **exact)
    for other in (tmp_path / 'a.png', image):
        assert torch.equal(start(other).picture, read)
    for tensor in (pixels, pixels[None], read, read[0]):
        torch.testing.assert_close(start(tensor).picture, read, **exact)


def test_a_picture_is_turned_upright_and_laid_over_white(tmp_path):
    image = noise()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # lies on its left side
    image.save(tmp_path / 'a.png', exif=exif)
    upright = start(image.transpose(Image.Transpose.ROTATE_270)).picture

    assert torch.equal(start(tmp_path / 'a.png').picture, upright)
    with Image.open(tmp_path / 'a.png') as opened:
        assert torch.equal(start(opened).picture, upright)
    clear = Image.new('RGBA', (32, 32), (0, 0, 0, 0))
    assert torch.equal(start(clear).picture, torch.ones(1, 3, 32, 32))


def test_the_largest_centred_part_is_drawn_and_not_bent():
    """Of a picture and its mask alike."""
    image = Image.new('RGB', (96, 32), 'red')
    image.paste('blue', (32, 0, 64, 32))
    mask = Image.new('L', (96, 32), 255)
    mask.paste(0, (40, 0, 64, 32))

    square = start(image, mask)
    assert (square.picture[0, 2] == 1).all()  # blue alone
    assert square.mask[0, 0].tolist() == [[1, 0, 0, 0]] * 4
    wide = start(image, size=(32, 64)).picture
    assert (wide[0, 0, 0] > 0).nonzero()[:, 0].tolist() == [
        *range(16),
        *range(48, 64),
    ]
    # in half the size one third of its width is one third
    half = start(image, mask, size=(16, 48)).mask
    assert half[0, 0].tolist() == [[1, 1, 1, 0, 1, 1]] * 2


def test_halves_of_a_mask_may_change_and_less_stays():
    mask = torch.zeros(32, 32)
    mask[:, 8:16], mask[:, 16:24], mask[:, 24:] = 0.49, 0.5, 1.0

    read = start(noise(), mask).mask

    assert read[0, 0].tolist() == [[0, 0, 1, 1]] * 4
    as_bytes = torch.where(mask >= 0.5, 255, 0).to(torch.uint8)
    for other in (mask[None], mask >= 0.5, as_bytes):
        assert torch.equal(start(noise(), other).mask, read)
    for mode in ('L', '1', 'RGB'):
        image = Image.fromarray(as_bytes.numpy()).convert(mode)
        assert torch.equal(start(noise(), image).mask, read)


def test_one_for_all_prompts_or_one_each():
    first, second = noise(), Image.new('RGB', (32, 32), 'blue')
    left = torch.zeros(32, 32)
    left[:, :16] = 1

    both = start([first, second], left, count=2)

    assert torch.equal(both.picture[0], start(first).picture[0])
    assert torch.equal(both.picture[1], start(second).picture[0])
    assert torch.equal(both.mask[0], both.mask[1])
    two = start(first, [left, 1 - left], count=2)
    assert torch.equal(two.picture[0], two.picture[1])
    assert torch.equal(two.mask[0], 1 - two.mask[1])
    assert torch.equal(two[1:].mask, two.mask[1:])
    again = two.repeat_interleave(2)
    assert torch.equal(again.mask[:2], two.mask[:1].repeat(2, 1, 1, 1))


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (torch.zeros(32, 32), r'\(3, H, W\).*got shape \(32, 32\)'),
        (torch.zeros(4, 32, 32), r'\(3, H, W\).*got shape \(4, 32, 32\)'),
        (torch.zeros(3, 0, 32), r'\(3, H, W\).*got shape \(3, 0, 32\)'),
        (torch.full((3, 32, 32), 2.0), r'\[-1, 1\].*in \[2, 2\]'),
        (torch.full((3, 32, 32), torch.nan), r'\[-1, 1\]'),
        (torch.zeros(3, 32, 32, dtype=torch.int32), 'real numbers or uint8'),
        (Image.new('I;16', (32, 32)), "mode 'I;16'.*the path of its file"),
        ([], 'one for each of 1, but got 0'),
    ],
)
def test_what_is_no_picture_is_told(image, message):
    with pytest.raises(ValueError, match=message):
        start(image)


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (Image.new('L', (16, 32), 255), '32 x 32 pixels.*is 16 x 32. Scale'),
        (Image.new('L', (32, 32), 0), 'The mask has no subject'),
        (Image.new('RGB', (32, 32), 'red'), 'the mask has colours'),
        (Image.new('RGBA', (32, 32), (255, 255, 255, 0)), 'no subject'),
        (torch.ones(16, 16), r'\(32, 32\).*got shape \(16, 16\)'),
        (torch.full((32, 32), 3.0), r'in \[0, 1\].*in \[3, 3\]'),
        (torch.zeros(32, 32), 'Nothing of the picture may change'),
        (torch.eye(32)[[*range(1, 32), 0]], 'less than 8 pixels of white'),
        (torch.ones(32, 32, dtype=torch.complex64), 'real numbers or uint8'),
    ],
)
def test_what_is_no_mask_is_told(mask, message):
    with pytest.raises(ValueError, match=message):
        start(noise(), mask)


def test_files_that_are_no_masks(tmp_path):
    (tmp_path / 'empty.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'empty\.png'):
        start(noise(), tmp_path / 'empty.png')
    with pytest.raises(FileNotFoundError, match=r'none\.png'):
        start(noise(), str(tmp_path / 'none.png'))
    with pytest.raises(ValueError, match='folder'):
        start(tmp_path)


def test_steps_are_rounded_down_as_in_diffusers():
    picture = torch.zeros(1, 3, 32, 32)
    for share, steps in ((1.0, 10), (0.7, 7), (0.69, 6), (0.1, 1)):
        assert Start(picture, share).steps(10) == steps
    with pytest.raises(ValueError, match=r'`denoise` 0\.09 of 10 steps'):
        Start(picture, 0.09).steps(10)
