"""Captioned pictures on one sheet."""

import numpy as np
import pytest
from PIL import Image

from mmhiper.utils.sheet import MIN_PANEL, draw_sheet

GAP = MIN_PANEL // 32
LONG = 'a standing dog with a red collar on the beach ' * 4
WORD = 'Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz'


def plain(colour: str, size: int = 64) -> Image.Image:
    return Image.new('RGB', (size, size), colour)


def colour_at(sheet: Image.Image, x: int, y: int) -> tuple:
    return sheet.getpixel((x, y))


@pytest.mark.parametrize('caption', ['a dog', LONG, WORD, f'{WORD} {LONG}'])
def test_captions_neither_overflow_nor_cover_a_picture(caption):
    captions = [caption, 'short', caption]
    colours = ['red', 'lime', 'blue']

    sheet = np.asarray(
        draw_sheet([list(zip(captions, map(plain, colours), strict=True))])
    )

    assert sheet.shape[1] == 3 * MIN_PANEL + 4 * GAP
    white = np.array([255, 255, 255])
    for column in range(4):  # the gaps between and beside the panels
        start = column * (MIN_PANEL + GAP)
        assert (sheet[:, start : start + GAP] == white).all()
    pictures = sheet[-GAP - MIN_PANEL : -GAP]
    for column, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        start = GAP + column * (MIN_PANEL + GAP)
        assert (pictures[:, start : start + MIN_PANEL] == colour).all()
    above = sheet[: -GAP - MIN_PANEL]
    assert (above < 128).any()  # the captions are there


def test_a_longer_caption_makes_more_room():
    short = draw_sheet([[('a dog', plain('red'))]])
    long = draw_sheet([[(LONG, plain('red'))]])

    assert long.height > short.height
    assert long.width == short.width


def test_without_captions_pictures_stand_close():
    sheet = draw_sheet([[('', plain('red')), ('', plain('blue'))]])

    assert sheet.height == MIN_PANEL + 2 * GAP
    assert colour_at(sheet, GAP, GAP) == (255, 0, 0)


def test_rows_of_several_lengths_and_sizes():
    sheet = draw_sheet(
        [
            [('', plain('red', 512)), ('', plain('blue', 64))],
            [('', plain('lime', 128))],
            [],
        ]
    )

    gap = 512 // 32
    assert sheet.size == (2 * 512 + 3 * gap, 2 * 512 + 3 * gap)
    assert colour_at(sheet, gap + 512 + gap, gap) == (0, 0, 255)
    assert colour_at(sheet, gap, 2 * gap + 512) == (0, 255, 0)
    assert colour_at(sheet, 600, 600) == (255, 255, 255)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match='at least one picture'):
        draw_sheet([[], []])
