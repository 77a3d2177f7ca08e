"""Pictures side by side with captions: previews, grids, result sheets."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

# Smaller pictures (the mini model draws 128 pixels) are enlarged to this
# width on a sheet, so that captions fit and people can see them.
MIN_PANEL = 256

Panel = tuple[str, Image.Image]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Break a caption into lines that fit; a long word is cut."""
    lines: list[str] = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while font.getlength(word) > width:
            word = word[:-2] + '…'
        lines.append(word)
    return [line for line in lines if line] or ['']


def draw_sheet(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Draw captioned pictures in rows on one white sheet.

    Args:
        rows (Sequence[Sequence[tuple[str, PIL.Image.Image]]]): Rows of
            (caption, picture). All pictures are scaled to the width of the
            widest, at least 256 pixels. Captions are wrapped; an empty
            caption takes no room where its whole row has none.

    Returns:
        PIL.Image.Image: The sheet, mode ``'RGB'``.

    Raises:
        ValueError: If there is no picture to draw.
    """
    pictures = [picture for row in rows for _, picture in row]
    if not pictures:
        raise ValueError('A sheet needs at least one picture, but got none.')
    size = max(MIN_PANEL, *(picture.width for picture in pictures))
    gap = size // 32
    font = ImageFont.load_default(size // 16)
    line_height = size // 13

    laid_out = []  # per row: height of the captions, then (x, lines, image)
    for row in rows:
        captions = [_wrap(caption, font, size) for caption, _ in row]
        has_text = any(caption for caption, _ in row)
        text_height = has_text * max(map(len, captions), default=0)
        panels = [
            (
                gap + column * (size + gap),
                lines,
                picture.convert('RGB').resize(
                    (size, round(picture.height * size / picture.width)),
                    Image.Resampling.LANCZOS,
                ),
            )
            for column, (lines, (_, picture)) in enumerate(
                zip(captions, row, strict=True)
            )
        ]
        laid_out.append((text_height * line_height, panels))

    width = gap + max(len(row) for row in rows) * (size + gap)
    height = gap + sum(
        text_height + max(image.height for *_, image in panels) + gap
        for text_height, panels in laid_out
        if panels
    )
    sheet = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(sheet)
    y = gap
    for text_height, panels in laid_out:
        if not panels:
            continue
        for x, lines, image in panels:
            for number, line in enumerate(lines):
                top = y + number * line_height
                draw.text((x, top), line, fill='black', font=font)
            sheet.paste(image, (x, y + text_height))
        y += text_height + max(image.height for *_, image in panels) + gap
    return sheet
