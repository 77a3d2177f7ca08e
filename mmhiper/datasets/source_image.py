"""The picture, or the pictures, to personalise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset
from typing_extensions import override

from mmhiper.registry import DATASETS
from mmhiper.utils.arguments import ChecksArguments
from mmhiper.utils.errors import UserError
from mmhiper.utils.shipped import or_shipped


@DATASETS.register_module()
class SourceImageDataset(ChecksArguments, BaseDataset):
    """One or several source images, each with its place in the embedding.

    An item holds ``inputs`` ((3, H, W) uint8, RGB in [0, 255]) and
    ``data_samples`` with the meta information ``image_index`` (0 .. K-1)
    and ``img_path``, and with a ``mask`` where there is one. Each file is
    read and decoded once: the pipeline must be deterministic, and an item is
    the same object every time, so an iteration costs no more than a look into
    a dict, also when a resumed run draws all its past batches again.

    Args:
        img: Path of the image, or K paths; those of pictures that come with
            the project work in any folder.
        data_root: Folder that relative paths start from. Defaults to the
            current folder.
        pipeline: Transforms from ``dict(img_path, image_index, mask_path)`` to
            the item.
        mask: Path of the image's mask (an image of its size; white is the
            subject, the only part that the loss counts), or K paths, None for
            an image that counts as a whole.

    Raises:
        FileNotFoundError: If an image does not exist.
        ValueError: If no image is named, or one cannot be read; if there is
            not one mask per image, or a mask does not fit its image.

    All images are read when the dataset is built, so that a bad file is
    reported before any training.
    """

    METAINFO = dict(dataset_type='source_image')

    def __init__(
        self,
        img: str | Sequence[str],
        data_root: str = '',
        pipeline: Sequence[dict | Callable] = (),
        mask: str | Sequence[str | None] | None = None,
    ) -> None:
        self.img = [img] if isinstance(img, str) else list(img)
        if not self.img:
            raise UserError(
                '`img` must name at least one source image, but got none.'
            )
        self.mask: list[str | None]
        if mask is None:
            self.mask = [None] * len(self.img)
        else:
            self.mask = [mask] if isinstance(mask, str) else list(mask)
        if len(self.mask) != len(self.img):
            raise UserError(
                f'`mask` must name one mask for each of {len(self.img)} '
                f'images (None for no mask), but got {len(self.mask)}.'
            )
        self._items: dict[int, dict] = {}
        super().__init__(
            data_root=data_root,
            data_prefix={},
            pipeline=list(pipeline),
            serialize_data=False,
        )

    @property
    def examples(self) -> dict[str, int]:
        """The items that stand for what is learned: the first image.

        Returns:
            By what their captions in a preview begin with.
        """
        return {'': 0}

    @override
    def load_data_list(self) -> list[dict]:
        """List the images, in the order in which they were named.

        Returns:
            ``img_path``, ``image_index`` and, where it has one, ``mask_path``
            of each image.
        """
        root = self.data_root or ''
        items = []
        for i, (path, mask) in enumerate(
            zip(self.img, self.mask, strict=True)
        ):
            item = dict(
                img_path=str(or_shipped(Path(root, path))), image_index=i
            )
            if mask is not None:
                item['mask_path'] = str(or_shipped(Path(root, mask)))
            items.append(item)
        return items

    @override
    def full_init(self) -> None:
        """List and read all images."""
        super().full_init()
        for index in range(len(self)):
            self.prepare_data(index)

    @override
    def prepare_data(self, idx: int) -> dict:
        """Return an item, prepared at its first use.

        Args:
            idx: Position of the image, 0 .. K-1.

        Returns:
            ``inputs`` and ``data_samples``.
        """
        if idx not in self._items:
            self._items[idx] = super().prepare_data(idx)
        return self._items[idx]
