"""Pictures that a stranger sends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmhiper.utils.errors import UserError
from mmhiper.utils.upright import load_upright_image

MOST_BYTES = 64_000_000  # of a file
MOST_FILES = 40
# More pixels than any backbone takes would only be sent to and fro.
MOST_SIDE = 1536


def read_upload(path: str, folder: Path) -> tuple[Image.Image, list[str]]:
    """A picture, whatever it is, upright and not too large; and remarks.

    Args:
        path: What a request says.
        folder: Of the uploads; no other file is read.
    """
    file = Path(path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise UserError('Only uploaded files are read here.')
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always', UserWarning)
        try:
            image = load_upright_image(file)
        except UserError as error:
            raise UserError(_without_folder(error, file)) from None
    image.thumbnail((MOST_SIDE, MOST_SIDE))
    return image, [_without_folder(each.message, file) for each in told]


def _without_folder(words: object, file: Path) -> str:
    return str(words).replace(str(file), file.name)


def read_uploads(
    paths: Sequence[str] | None, folder: Path
) -> list[Image.Image]:
    """Likewise several photos."""
    if not paths or len(paths) > MOST_FILES:
        raise UserError(
            f'Wanted 1 to {MOST_FILES} photos, but got {len(paths or [])}.'
        )
    return [read_upload(path, folder)[0] for path in paths]


def split_painted(
    background: Image.Image | None, layers: Sequence[Image.Image]
) -> tuple[Image.Image, Image.Image | None]:
    """What somebody painted on, and the mask: white where there is paint.

    Args:
        background: The picture, if there is one.
        layers: The paint, opaque.
    """
    if background is None:
        raise UserError('Choose a photo first.')
    picture = background.convert('RGB')
    paint = np.zeros((picture.height, picture.width), np.uint8)
    for layer in layers:
        alpha = layer.convert('RGBA').getchannel('A').resize(picture.size)
        paint[np.asarray(alpha) > 127] = 255
    return picture, Image.fromarray(paint) if paint.any() else None
