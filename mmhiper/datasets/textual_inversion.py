"""The pictures of concepts, and sentences about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from mmhiper.datasets.source_image import SourceImageDataset
from mmhiper.datasets.templates import (
    CAPTION_SUFFIXES,
    Prompts,
    Sentences,
    Templates,
    is_template,
)
from mmhiper.registry import DATASETS
from mmhiper.utils.errors import MissingFileError, UserError
from mmhiper.utils.file_kinds import kind_of
from mmhiper.utils.picture_files import is_picture
from mmhiper.utils.shipped import or_shipped


@DATASETS.register_module()
class TextualInversionDataset(SourceImageDataset):
    """Folders of pictures of concepts, with templates of sentences.

    An item is that of :class:`SourceImageDataset` with ``prompts``, all
    templates with the placeholder filled in, in its meta information; the
    editor takes one of them at each iteration. Pictures of several concepts
    are counted through, and drawn as often as one another.

    Args:
        data_root: Folder that ``concept_dir`` is in.
        concept_dir: Folder of the pictures; those in folders below are left
            alone, and files that are no pictures are named and skipped. C
            folders for C concepts.
        placeholder: The new word, as in the model; of C folders one each.
            Pictures that show several have a list of words, and templates with
            as many ``{}``.
        template: A file with one template per line, or the templates, each
            with one ``{}`` for the placeholder; or files of the A1111 web UI,
            see :class:`Sentences`. A mapping has such under 'default', and
            others by the name of a backbone that knows other words
            ('mini-sd'). One for all folders, or a list of C.
        pipeline: Transforms from ``dict(img_path, image_index, mask_path,
            prompts)`` to the item.
        mask_dir: Folder in ``data_root`` with a mask of each picture, under
            its name (``1.png`` for ``1.jpeg``); see
            :class:`SourceImageDataset`. It may lie in ``concept_dir``. Of C
            folders one each, None for no masks.

    Raises:
        FileNotFoundError: If a folder, the file, a mask or a caption that is
            needed does not exist.
        ValueError: If there is no picture, no template, or a template without
            ``{}``; if a picture is damaged; or if there is not one of each
            for each folder.
    """

    METAINFO = dict(dataset_type='textual_inversion')

    def __init__(
        self,
        data_root: str,
        concept_dir: str | Sequence[str],
        placeholder: str | Sequence[str | Sequence[str]],
        template: Templates | Sequence[Templates],
        pipeline: Sequence[dict | Callable] = (),
        mask_dir: str | Sequence[str | None] | None = None,
    ) -> None:
        concepts: list[tuple[str, Any, Any, Any]]
        if isinstance(concept_dir, str):
            concepts = [(concept_dir, placeholder, template, mask_dir)]
        else:
            concepts = _one_each(concept_dir, placeholder, template, mask_dir)
        images: list[str] = []
        masks: list[str | None] = []
        self.prompts: list[Prompts] = []  # of each picture
        self._examples: dict[str, int] = {}  # by word
        for folder, words, sentences, mask_folder in concepts:
            words = [words] if isinstance(words, str) else list(words)
            about = Sentences(sentences, words)
            found = pictures_in(
                or_shipped(Path(data_root, folder)), about.has_captions
            )
            for word in words:
                self._examples.setdefault(word, len(images))
            images += found
            masks += (
                _masks_of(found, Path(data_root, mask_folder))
                if mask_folder
                else [None] * len(found)
            )
            self.prompts += [about.about(picture) for picture in found]
        super().__init__(img=images, pipeline=pipeline, mask=masks)

    @property
    @override
    def examples(self) -> dict[str, int]:
        """The first picture of each word; of a single one without its name."""
        if len(self._examples) == 1:
            return super().examples
        return {f'{word}: ': i for word, i in self._examples.items()}

    @override
    def load_data_list(self) -> list[dict]:
        """List the pictures, concept by concept, sorted by name.

        Returns:
            ``img_path``, ``image_index``, ``prompts`` and, where there are
            masks, ``mask_path``.
        """
        return [
            dict(item, prompts=prompts)
            for item, prompts in zip(
                super().load_data_list(), self.prompts, strict=True
            )
        ]


def _one_each(
    folders: Sequence[str], words: Any, templates: Any, masks: Any
) -> list[tuple[str, Any, Any, Any]]:
    """What belongs to each of several folders; see the dataset."""
    # C folders: one template for all of them, or C; no masks, or C folders.
    count = len(folders)
    if not isinstance(templates, str | Mapping):
        each = list(templates)
        lines = all(isinstance(t, str) and is_template(t) for t in each)
        templates = [each] * count if lines else each
    else:
        templates = [templates] * count
    masks = [None] * count if masks is None else masks
    for name, given in (
        ('placeholder', words),
        ('template', templates),
        ('mask_dir', masks),
    ):
        if isinstance(given, str) or len(given) != count:
            raise UserError(
                f'`{name}` must have one entry for each of the {count} '
                f'folders of `concept_dir`, but got {given!r}.'
            )
    return list(zip(folders, words, templates, masks, strict=True))


def pictures_in(folder: Path, captions: bool) -> list[str]:
    """The pictures of a folder, sorted by name.

    Args:
        captions: Whether the captions beside them are read.

    Returns:
        Their paths.

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
    stems = {path.stem for path in pictures}
    skipped: dict[bool, list[str]] = {True: [], False: []}
    for path in files:
        if path not in pictures:
            caption = path.suffix in CAPTION_SUFFIXES and path.stem in stems
            kind = kind_of(path)
            # 1.png may be a web page, or a pointer of Git LFS
            about = f' ({kind.name})' if kind and not kind.is_text else ''
            skipped[caption].append(f'{path.name}{about}')
    if skipped[False]:
        warnings.warn(
            f'Skipped in {str(folder)!r}, as they are no pictures: '
            f'{", ".join(skipped[False])}.',
            stacklevel=2,
        )
    if skipped[True] and not captions:
        warnings.warn(
            f'Captions in {str(folder)!r} are not read, as no template has '
            f'[filewords] in it: {", ".join(skipped[True])}.',
            stacklevel=2,
        )
    if not pictures:
        raise UserError(
            f'The folder {str(folder)!r} holds no picture. Put some into it, '
            '3 to 5 of a concept (PNG, JPEG or what Pillow reads).'
        )
    return [str(path) for path in pictures]


def _masks_of(pictures: Sequence[str], folder: Path) -> list[str]:
    """The masks of pictures, found by their names."""
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
