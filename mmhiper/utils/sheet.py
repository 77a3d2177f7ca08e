"""Pictures side by side with captions: previews, grids, result sheets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from mmhiper.io.picture_records import KEY
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.picture_files import open_picture

# Smaller pictures (the mini model draws 128 pixels) are enlarged to this
# width on a sheet, so that captions fit and people can see them.
MIN_PANEL = 256
# A longer caption ends in an ellipsis.
MAX_LINES = 8
# Under this name a sheet notes, in `info`, where its panels are.
NOTE = 'panels'

Panel = tuple[str, Image.Image]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


# ------------------------------------------------------------------- captions
def _num_missing(font: Font, text: str) -> int:
    """How many characters of a text the font has no glyph for."""
    missing = bytes(font.getmask('\U0010ffff'))  # never a character
    letters = {letter for letter in text if not letter.isspace()}
    return sum(bytes(font.getmask(each)) == missing for each in letters)


def _fonts(size: int) -> Iterator[Font]:
    """Pillow's own font, that of matplotlib, and what is installed."""
    yield ImageFont.load_default(size)
    # only where the first one does not serve: it has few accents, even
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    bundled = Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')
    for file in (str(bundled), *sorted(findSystemFonts())):
        try:
            yield ImageFont.truetype(file, size)
        except OSError:  # not every font file can be scaled
            continue


@lru_cache(maxsize=64)
def _font_for(text: str, size: int) -> Font:
    """The first font that has all characters, or else most of them."""
    best, fewest = None, len(text) + 1
    for font in _fonts(size):
        missing = _num_missing(font, text)
        if missing < fewest:
            best, fewest = font, missing
        if not missing:
            break
    if fewest:
        warnings.warn(
            f'No installed font has all characters of {text[:40]!r} ...: '
            'some show as boxes. Install one, such as Noto Sans CJK.',
            stacklevel=2,
        )
    assert best is not None
    return best


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Break a caption into lines that fit, between words where it can."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append('')
        for letter in word:  # a word longer than a line goes on in the next
            if font.getlength(lines[-1] + letter) > width:
                lines.append('')
            lines[-1] += letter
    lines = [line for line in lines if line] or ['']
    if len(lines) > MAX_LINES:
        last = lines[MAX_LINES - 1]
        while font.getlength(f'{last}…') > width:
            last = last[:-1]
        lines = [*lines[: MAX_LINES - 1], f'{last}…']
    return lines


# --------------------------------------------------------------------- sheets
@dataclass(frozen=True)
class _Caption:
    """A caption as it is drawn."""

    text: str
    font: Font
    lines: list[str]
    line_height: int

    @classmethod
    def of(cls, text: str, size: int) -> _Caption:
        """Lays out the caption of a panel ``size`` pixels wide."""
        # one that the ellipsis, too, can be written in
        font = _font_for(text and f'{text}…', size // 16)
        height = size // 13
        if isinstance(font, ImageFont.FreeTypeFont):
            height = max(height, sum(font.getmetrics()))
        return cls(text, font, _wrap(text, font, size), height)

    @property
    def height(self) -> int:
        """In pixels; an empty caption takes no room."""
        return len(self.lines) * self.line_height if self.text else 0

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        """Writes the lines from (x, y) on."""
        for number, line in enumerate(self.lines):
            top = y + number * self.line_height
            draw.text((x, top), line, fill='black', font=self.font)


def draw_sheet(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Draw captioned pictures in rows on one white sheet.

    Args:
        rows: Rows of (caption, picture). All pictures are scaled to the width
            of the widest, at least 256 pixels. Captions are wrapped, and end
            in an ellipsis after 8 lines; an empty caption takes no room where
            its whole row has none.

    Returns:
        The sheet, mode ``'RGB'``; :func:`cut_panels` gives the pictures back.

    Raises:
        ValueError: If there is no picture to draw.
    """
    rows = [row for row in rows if row]
    pictures = [picture for row in rows for _, picture in row]
    if not pictures:
        raise UserError('A sheet needs at least one picture, but got none.')
    size = max(MIN_PANEL, *(picture.width for picture in pictures))
    gap = size // 32
    placed: list[tuple[int, int, int, _Caption, Image.Image]] = []
    y = gap
    for row in rows:
        captions = [_Caption.of(text, size) for text, _ in row]
        images = [_widen(picture, size) for _, picture in row]
        top = y + max(caption.height for caption in captions)
        placed += [
            (gap + column * (size + gap), y, top, caption, image)
            for column, (caption, image) in enumerate(
                zip(captions, images, strict=True)
            )
        ]
        y = top + max(image.height for image in images) + gap

    width = gap + max(len(row) for row in rows) * (size + gap)
    sheet = Image.new('RGB', (width, y), 'white')
    draw = ImageDraw.Draw(sheet)
    for x, line, top, caption, image in placed:
        caption.draw(draw, x, line)
        sheet.paste(image, (x, top))
    sheet.info[NOTE] = json.dumps(
        [
            (caption.text, (x, top, x + size, top + image.height))
            for x, _, top, caption, image in placed
        ]
    )
    return sheet


def _widen(picture: Image.Image, width: int) -> Image.Image:
    """Scales a picture to a width."""
    height = round(picture.height * width / picture.width)
    return picture.convert('RGB').resize(
        (width, height), Image.Resampling.LANCZOS
    )


def save_sheet(
    sheet: Image.Image,
    path: str | Path,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Save a sheet as PNG, with the places of its panels in its metadata.

    Args:
        sheet: Drawn by :func:`draw_sheet`.
        path: Where to; any suffix.
        record: What all its panels were drawn with, plain values, for the text
            chunk 'mmhiper'.
    """
    note = PngImagePlugin.PngInfo()
    note.add_text(NOTE, sheet.info[NOTE])
    if record is not None:
        note.add_itxt(KEY, json.dumps(record))
    sheet.save(path, format='PNG', pnginfo=note)


def cut_panels(sheet: Image.Image) -> list[Panel]:
    """Cut the pictures out of a sheet again.

    Args:
        sheet: Drawn by :func:`draw_sheet`, or opened from a file of
            :func:`save_sheet`.

    Returns:
        Captions and pictures, row by row.

    Raises:
        ValueError: If it is no such sheet.
    """
    note = sheet.info.get(NOTE)
    if not isinstance(note, str):
        raise UserError(
            'A sheet of `draw_sheet`, saved by `save_sheet`, was wanted, but '
            'the picture does not say where its panels are.'
        )
    return [(text, sheet.crop(box)) for text, box in _places(note, sheet.size)]


def read_panels(path: str | Path) -> list[Panel]:
    """Cut the pictures out of a file of :func:`save_sheet`.

    Returns:
        See :func:`cut_panels`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or no such sheet.
    """
    with open_picture(path) as sheet:
        sheet.load()
    try:
        return cut_panels(sheet)
    except UserError as error:
        raise FileError(f'{str(path)!r} cannot be used: {error}') from error


def _places(
    note: str, size: tuple[int, int]
) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Captions and boxes, as a sheet notes them."""
    try:
        found = [(text, tuple(box)) for text, box in json.loads(note)]
    except (ValueError, TypeError, RecursionError):
        found = []
    sound = all(
        isinstance(text, str)
        and len(box) == 4
        and all(type(edge) is int for edge in box)
        and 0 <= box[0] < box[2] <= size[0]
        and 0 <= box[1] < box[3] <= size[1]
        for text, box in found
    )
    area = sum(
        (box[2] - box[0]) * (box[3] - box[1]) for _, box in found if sound
    )
    # panels do not overlap: a note cannot ask for more than the sheet
    if not found or not sound or area > size[0] * size[1]:
        raise UserError(
            'A sheet of `draw_sheet`, saved by `save_sheet`, was wanted, but '
            'what the picture says of its panels is damaged.'
        )
    return found


def _area(places: list[tuple[str, tuple[int, ...]]]) -> int:
    return sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1) in places)
