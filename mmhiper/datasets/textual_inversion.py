"""The pictures of a concept, and sentences about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from mmhiper.datasets.source_image import SourceImageDataset
from mmhiper.registry import DATASETS
from mmhiper.utils.errors import MissingFileError, UserError
from mmhiper.utils.picture_files import is_picture
from mmhiper.utils.reading import read_text
from mmhiper.utils.shipped import or_shipped


@DATASETS.register_module()
class TextualInversionDataset(SourceImageDataset):
    """A folder of pictures of one concept, with templates of sentences.

    An item is that of :class:`SourceImageDataset` with ``prompts``, all
    templates with the placeholder filled in, in its meta information; the
    editor takes one of them at each iteration.

    Args:
        data_root (str): Folder that ``concept_dir`` is in.
        concept_dir (str): Folder of the pictures; those in folders below are
            left alone, and files that are no pictures are named and skipped.
        placeholder (str): The new word, as in the model.
        template (str | Sequence[str]): A file with one template per line, or
            the templates, each with one ``{}`` for the placeholder.
        pipeline (Sequence[dict | Callable]): Transforms from
            ``dict(img_path, image_index, mask_path, prompts)`` to the item.
        mask_dir (str, optional): Folder in ``data_root`` with a mask of each
            picture, under its name (``1.png`` for ``1.jpeg``); see
            :class:`SourceImageDataset`. It may lie in ``concept_dir``.

    Raises:
        FileNotFoundError: If a folder, the file or a mask does not exist.
        ValueError: If there is no picture, no template, or a template without
            ``{}``; or if a picture is damaged.
    """

    METAINFO = dict(dataset_type='textual_inversion')

    def __init__(
        self,
        data_root: str,
        concept_dir: str,
        placeholder: str,
        template: str | Sequence[str],
        pipeline: Sequence[dict | Callable] = (),
        mask_dir: str | None = None,
    ) -> None:
        prompts = [
            text.replace('{}', placeholder) for text in _templates(template)
        ]
        self.prompts = tuple(prompts)
        images = _pictures_in(or_shipped(Path(data_root, concept_dir)))
        masks = mask_dir and _masks_of(images, Path(data_root, mask_dir))
        super().__init__(img=images, pipeline=pipeline, mask=masks)

    def load_data_list(self) -> list[dict]:
        """List the pictures, sorted by name.

        Returns:
            list[dict]: ``img_path``, ``image_index``, ``prompts`` and, where
            there are masks, ``mask_path``.
        """
        return [
            dict(item, prompts=self.prompts)
            for item in super().load_data_list()
        ]


def _pictures_in(folder: Path) -> list[str]:
    """The pictures of a folder, sorted by name.

    Args:
        folder (Path): The folder.

    Returns:
        list[str]: Their paths.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no picture.
    """
    if not folder.is_dir():
        raise MissingFileError(
            f'There is no folder {str(folder)!r} of pictures of the concept '
            '(`data_root` and `concept_dir` of the dataset).'
        )
    files = sorted(path for path in folder.iterdir() if path.is_file())
    pictures = [path for path in files if is_picture(path)]
    skipped = [path.name for path in files if path not in pictures]
    if skipped:
        warnings.warn(
            f'Skipped in {str(folder)!r}, as they are no pictures: '
            f'{", ".join(skipped)}.',
            stacklevel=2,
        )
    if not pictures:
        raise UserError(
            f'The folder {str(folder)!r} holds no picture. Put 3 to 5 '
            'pictures of the concept into it (PNG, JPEG or what Pillow '
            'reads).'
        )
    return [str(path) for path in pictures]


def _masks_of(pictures: Sequence[str], folder: Path) -> list[str]:
    """The masks of pictures, found by their names.

    Args:
        pictures (Sequence[str]): Paths.
        folder (Path): The folder of the masks.

    Returns:
        list[str]: A path for each picture.

    Raises:
        FileNotFoundError: If there is no such folder, or it lacks a mask.
    """
    if not folder.is_dir():
        raise MissingFileError(
            f'There is no folder {str(folder)!r} of masks (`data_root` and '
            '`mask_dir` of the dataset).'
        )
    masks = {path.stem: str(path) for path in sorted(folder.iterdir())}
    stems = [Path(picture).stem for picture in pictures]
    missing = [stem for stem in stems if stem not in masks]
    if missing:
        raise MissingFileError(
            f'The folder {str(folder)!r} has no mask of: '
            f'{", ".join(missing)}. Each picture needs one under its own '
            'name, such as 1.png for 1.jpeg; an all white one counts it whole.'
        )
    return [masks[stem] for stem in stems]


def _templates(template: str | Sequence[str]) -> list[str]:
    """The templates, from a list or from the lines of a file.

    Args:
        template (str or Sequence[str]): See the dataset.

    Returns:
        list[str]: At least one, each with one ``{}``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no template, or one without ``{}``.
    """
    lines = [template] if isinstance(template, str) else list(template)
    where = '`template`'
    if isinstance(template, str) and '{}' not in template:
        text = read_text(
            or_shipped(template),
            'a file of templates (`template` of the dataset), lines such as '
            "'a photo of a {}'",
        )
        lines = text.splitlines()
        where = repr(template)
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise UserError(f'{where} holds no template.')
    for line in lines:
        if line.count('{}') != 1:
            raise UserError(
                f'A template in {where} must have one {{}} for the '
                f'placeholder, but got {line[:80]!r}.'
            )
    return lines
