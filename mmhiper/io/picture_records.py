"""Pictures that say what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import FileError
from mmhiper.utils.picture_files import open_picture
from mmhiper.utils.reading import JSON_DAMAGE, reading
from mmhiper.version import __version__

KEY = 'mmhiper'  # of the text chunk of a PNG file that holds all facts
RECORDS = 'pictures.json'
_REMEDY = 'Another program has changed it; take the original.'


def write_picture(
    path: str | Path, image: Image.Image, record: Mapping[str, Any]
) -> None:
    """Writes a PNG file with what made the picture in its metadata.

    The text chunk 'mmhiper' holds all of it as JSON; 'Software' and, where
    the picture has a prompt, 'Description' are for other programs.

    Args:
        path: The file; its folder must exist.
        record: Plain values, for instance 'prompt'.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('Software', f'mmhiper {__version__}')
    if 'prompt' in record:
        chunks.add_itxt('Description', _encodable(record['prompt']))
    text = json.dumps(record, ensure_ascii=False)
    chunks.add_itxt(KEY, _encodable(text))
    with atomic_path(path) as temporary:
        image.save(temporary, format='PNG', pnginfo=chunks)


def _encodable(text: str) -> str:
    """With escapes, as of JSON, for bytes of file names that are no text."""
    return text.encode('utf-8', 'backslashreplace').decode()


def read_picture_record(path: str | Path) -> dict[str, Any]:
    """Reads what made a picture.

    Args:
        path: A file that :func:`write_picture` wrote.

    Returns:
        The record.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, or says nothing of that kind.
    """
    with open_picture(path) as image:
        image.load()  # the chunks may stand behind the pixels
        size, text = image.size, getattr(image, 'text', {}).get(KEY)
    if text is None:
        raise FileError(
            f'{str(path)!r} is a picture of {size[0]} x {size[1]} pixels that '
            'does not say what made it: it is not from this package, or '
            'another program has saved it since and left that out.'
        )
    with reading(
        path, 'is a picture with a damaged record', _REMEDY, JSON_DAMAGE
    ):
        facts = json.loads(text)
    if not isinstance(facts, dict):
        raise FileError(
            f'{str(path)!r} is a picture whose record is no JSON object, but '
            f'a {type(facts).__name__}. {_REMEDY}'
        )
    return facts


class PictureFolder:
    """Numbered pictures, and ``pictures.json``, which says what made each.

    Args:
        folder: It must exist; files of the same names in it are replaced.
        count: How many pictures there will be, for names that sort.

    Attributes:
        records: Of the pictures so far, with their 'file'.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.folder = Path(folder)
        self.records: list[dict[str, Any]] = []
        self._digits = max(3, len(str(count - 1)))

    def add(self, image: Image.Image, record: Mapping[str, Any]) -> Path:
        """Writes the next picture, and notes it.

        Args:
            record: See :func:`write_picture`.

        Returns:
            Its file.
        """
        path = self.folder / f'{len(self.records):0{self._digits}d}.png'
        write_picture(path, image, record)
        self.records.append(dict(file=path.name, **record))
        text = json.dumps(self.records, indent=1, ensure_ascii=False)
        with atomic_path(self.folder / RECORDS) as temporary:
            temporary.write_text(_encodable(text) + '\n', encoding='utf-8')
        return path
