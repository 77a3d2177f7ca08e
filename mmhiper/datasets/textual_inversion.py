"""The pictures of concepts, and sentences about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmhiper.datasets.source_image import SourceImageDataset
from mmhiper.registry import DATASETS
from mmhiper.utils.errors import MissingFileError, UserError
from mmhiper.utils.picture_files import is_picture
from mmhiper.utils.reading import read_text
from mmhiper.utils.shipped import or_shipped

# One or several sentences, or a file of them; by backbone where they differ.
Templates = str | Sequence[str] | Mapping[str, str | Sequence[str]]
Prompts = tuple[str, ...] | dict[str, tuple[str, ...]]
DEFAULT = 'default'


@DATASETS.register_module()
class TextualInversionDataset(SourceImageDataset):
    """Folders of pictures of concepts, with templates of sentences.

    An item is that of :class:`SourceImageDataset` with ``prompts``, all
    templates with the placeholder filled in, in its meta information; the
    editor takes one of them at each iteration. Pictures of several concepts
    are counted through, and drawn as often as one another.

    Args:
        data_root (str): Folder that ``concept_dir`` is in.
        concept_dir (str | Sequence[str]): Folder of the pictures; those in
            folders below are left alone, and files that are no pictures are
            named and skipped. C folders for C concepts.
        placeholder (str | Sequence[str | Sequence[str]]): The new word, as in
            the model; of C folders one each. Pictures that show several have
            a list of words, and templates with as many ``{}``.
        template (str | Sequence[str] | Mapping): A file with one template per
            line, or the templates, each with one ``{}`` for the placeholder.
            A mapping has such under 'default', and others by the name of a
            backbone that knows other words ('mini-sd'). One for all folders,
            or a list of C.
        pipeline (Sequence[dict | Callable]): Transforms from
            ``dict(img_path, image_index, mask_path, prompts)`` to the item.
        mask_dir (str | Sequence[str | None], optional): Folder in
            ``data_root`` with a mask of each picture, under its name
            (``1.png`` for ``1.jpeg``); see :class:`SourceImageDataset`. It may
            lie in ``concept_dir``. Of C folders one each, None for no masks.

    Raises:
        FileNotFoundError: If a folder, the file or a mask does not exist.
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
            found = _pictures_in(or_shipped(Path(data_root, folder)))
            for word in words:
                self._examples.setdefault(word, len(images))
            images += found
            masks += (
                _masks_of(found, Path(data_root, mask_folder))
                if mask_folder
                else [None] * len(found)
            )
            self.prompts += [_sentences(sentences, words)] * len(found)
        super().__init__(img=images, pipeline=pipeline, mask=masks)

    @property
    def examples(self) -> dict[str, int]:
        """The first picture of each word; of a single one without its name."""
        if len(self._examples) == 1:
            return super().examples
        return {f'{word}: ': i for word, i in self._examples.items()}

    def load_data_list(self) -> list[dict]:
        """List the pictures, concept by concept, sorted by name.

        Returns:
            list[dict]: ``img_path``, ``image_index``, ``prompts`` and, where
            there are masks, ``mask_path``.
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
    """What belongs to each of several folders; see the dataset.

    Args:
        folders (Sequence[str]): C folders.
        words (Sequence): C words, or lists of words.
        templates: One for all, or C.
        masks: None, or C folders.

    Returns:
        list[tuple]: C times folder, word, templates and masks.

    Raises:
        ValueError: If the numbers differ.
    """
    count = len(folders)
    if not isinstance(templates, str | Mapping):
        each = list(templates)
        lines = all(isinstance(t, str) and '{}' in t for t in each)
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


def _sentences(template: Templates, words: Sequence[str]) -> Prompts:
    """The sentences about pictures of some words.

    Args:
        template: See the dataset.
        words (Sequence[str]): P words, in the order of the ``{}``.

    Returns:
        tuple[str, ...] or dict: By backbone, where the templates are.

    Raises:
        ValueError: If a mapping has no 'default'; or see :func:`_templates`.
    """
    if isinstance(template, Mapping):
        if DEFAULT not in template:
            raise UserError(
                f'`template` must have the key {DEFAULT!r} beside those of '
                f'backbones, but got {", ".join(map(repr, template))}.'
            )
        return {
            name: tuple(_filled(each, words))
            for name, each in template.items()
        }
    return tuple(_filled(template, words))


def _filled(
    template: str | Sequence[str], words: Sequence[str]
) -> Iterator[str]:
    """Each template with the words in it."""
    for text in _templates(template, len(words)):
        for word in words:
            text = text.replace('{}', word, 1)
        yield text


def _templates(template: str | Sequence[str], places: int) -> list[str]:
    """The templates, from a list or from the lines of a file.

    Args:
        template (str or Sequence[str]): See the dataset.
        places (int): How many words each has.

    Returns:
        list[str]: At least one, each with as many ``{}``.

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
    wanted = 'one {} for the placeholder'
    if places > 1:
        wanted = f'{places} {{}}, one for each placeholder'
    for line in lines:
        if line.count('{}') != places:
            raise UserError(
                f'A template in {where} must have {wanted}, but got '
                f'{line[:80]!r}.'
            )
    return lines
