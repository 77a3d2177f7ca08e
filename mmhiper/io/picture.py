"""Pictures that say what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import MissingFileError, UserError
from mmhiper.version import __version__

KEY = 'mmhiper'  # of the text chunk of a PNG file that holds all facts
RECORDS = 'pictures.json'


def write_picture(
    path: str | Path, image: Image.Image, record: Mapping[str, Any]
) -> None:
    """Writes a PNG file with what made the picture in its metadata.

    The text chunk 'mmhiper' holds all of it as JSON; 'Software' and, where
    the picture has a prompt, 'Description' are for other programs.

    Args:
        path (str or Path): The file; its folder must exist.
        image (PIL.Image.Image): The picture.
        record (Mapping[str, Any]): Plain values, for instance 'prompt'.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('Software', f'mmhiper {__version__}')
    if 'prompt' in record:
        chunks.add_itxt('Description', record['prompt'])
    text = json.dumps(record, ensure_ascii=False)
    chunks.add_itxt(KEY, text)
    with atomic_path(path) as temporary:
        image.save(temporary, format='PNG', pnginfo=chunks)


def read_picture_record(path: str | Path) -> dict[str, Any]:
    """Reads what made a picture.

    Args:
        path (str or Path): A file that :func:`write_picture` wrote.

    Returns:
        dict[str, Any]: The record.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, or says nothing of that kind.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'There is no picture {str(path)!r}.')
    try:
        with Image.open(path) as image:
            image.load()  # the chunks may stand behind the pixels
            size, text = image.size, getattr(image, 'text', {}).get(KEY)
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(
            f'{str(path)!r} is not a complete picture: {error}'
        ) from error
    if text is None:
        raise UserError(
            f'{str(path)!r} is a picture of {size[0]} x {size[1]} pixels that '
            'does not say what made it: it is not from this package, or '
            'another program has saved it since and left that out.'
        )
    facts: dict[str, Any] = json.loads(text)
    return facts


class PictureFolder:
    """Numbered pictures, and ``pictures.json``, which says what made each.

    Args:
        folder (str or Path): It must exist; files of the same names in it
            are replaced.
        count (int): How many pictures there will be, for names that sort.

    Attributes:
        records (list[dict]): Of the pictures so far, with their 'file'.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.folder = Path(folder)
        self.records: list[dict[str, Any]] = []
        self._digits = max(3, len(str(count - 1)))

    def add(self, image: Image.Image, record: Mapping[str, Any]) -> Path:
        """Writes the next picture, and notes it.

        Args:
            image (PIL.Image.Image): The picture.
            record (Mapping[str, Any]): See :func:`write_picture`.

        Returns:
            Path: Its file.
        """
        path = self.folder / f'{len(self.records):0{self._digits}d}.png'
        write_picture(path, image, record)
        self.records.append(dict(file=path.name, **record))
        text = json.dumps(self.records, indent=1, ensure_ascii=False)
        with atomic_path(self.folder / RECORDS) as temporary:
            temporary.write_text(text + '\n', encoding='utf-8')
        return path
