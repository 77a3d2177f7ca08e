"""Captioned pictures on one sheet."""

import numpy as np
import pytest
from PIL import Image

from mmhiper.utils import sheet as sheets
from mmhiper.utils.sheet import (
    MAX_LINES,
    MIN_PANEL,
    cut_panels,
    draw_sheet,
    save_sheet,
)

GAP = MIN_PANEL // 32
LONG = 'a standing dog with a red collar on the beach ' * 4
ENDLESS = LONG * 20
CYRILLIC = 'собака лежит на пляже под большим красным зонтиком ' * 3
CHINESE = '一只戴着红色项圈的狗站在海滩上' * 9  # no spaces in it
WORD = 'Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz'


def plain(colour: str, size: int = 64) -> Image.Image:
    return Image.new('RGB', (size, size), colour)


def colour_at(sheet: Image.Image, x: int, y: int) -> tuple:
    return sheet.getpixel((x, y))


@pytest.mark.filterwarnings('ignore:No installed font')
@pytest.mark.parametrize(
    'caption',
    ['a dog', LONG, ENDLESS, WORD, WORD * 20, f'{WORD} {LONG}']
    + [CYRILLIC, CHINESE],
)
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


def written(caption, size=MIN_PANEL):
    """The lines of a caption on a sheet."""
    return sheets._Caption.of(caption, size).lines


def test_a_caption_is_written_in_full_where_it_can_be():
    assert ' '.join(written(LONG)) == LONG.strip()
    assert ''.join(written(WORD)) == WORD
    assert len(written(WORD)) > 1


@pytest.mark.parametrize('caption', [ENDLESS, WORD * 20])
def test_an_endless_caption_ends_in_an_ellipsis(caption):
    lines = written(caption)

    assert len(lines) == MAX_LINES
    assert lines[-1].endswith('…')
    shown = ' '.join(lines) if ' ' in caption else ''.join(lines)
    assert caption.startswith(shown[:-1])


@pytest.mark.parametrize('text', ['déjà vu', 'Straße', CYRILLIC, 'σκύλος'])
def test_letters_with_accents_and_of_other_alphabets_are_drawn(text):
    font = sheets._font_for(text, 16)

    assert sheets._num_missing(font, text) == 0


def test_characters_that_no_font_has_are_reported():
    private = '\U000f1234'  # a code point that is for nobody's letters
    with pytest.warns(UserWarning, match='No installed font has all'):
        draw_sheet([[(f'a dog {private}', plain('red'))]])


def test_panels_are_cut_out_of_a_saved_sheet(tmp_path):
    rows = [
        [(LONG, plain('red')), ('ein größerer Hund', plain('blue'))],
        [('', plain('lime'))],
    ]
    sheet = draw_sheet(rows)

    save_sheet(sheet, tmp_path / 'sheet.png')

    with Image.open(tmp_path / 'sheet.png') as opened:
        panels = cut_panels(opened)
    captions = [caption for caption, _ in panels]
    assert captions == [LONG, 'ein größerer Hund', '']
    for (_, panel), colour in zip(
        panels, ['red', 'blue', 'lime'], strict=True
    ):
        expected = np.asarray(plain(colour, MIN_PANEL))
        assert np.array_equal(np.asarray(panel), expected)


def test_another_picture_is_no_sheet():
    with pytest.raises(ValueError, match='does not say where'):
        cut_panels(plain('red'))
