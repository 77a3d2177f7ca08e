"""Many photos with a text of their own: learned in groups, drawn one by one.

Results lie in one folder:

    embeddings.safetensors   what all have learned, K rows of one embedding
    index.html               a page with all sheets
    results.json             name, texts and row of each, or why it has none
    NAME/                    of each photo: its embedding, pictures, a sheet

A group is trained to its end and written before the next one begins, so
memory does not depend on the number of photos, and a later start goes on
behind the groups that are done.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmhiper.engine.learnable import check_learnable
from mmhiper.engine.run_lock import run_lock
from mmhiper.engine.share import Share, wait_for_others
from mmhiper.engine.sources import sources_of
from mmhiper.engine.together import check_together, learn_each
from mmhiper.inferencer import GUIDANCE, EditInferencer
from mmhiper.io import PictureFolder, write_export, write_picture
from mmhiper.io.modelspec import check_given
from mmhiper.registry import DATASETS, MODELS, SCOPE
from mmhiper.results import (
    DONE,
    EMBEDDING,
    EMBEDDINGS,
    ERROR,
    PAGE,
    SHEET,
    collect,
)
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import (
    WriteError,
    atomic_path,
    check_writable,
    remove_leftovers,
)
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import UserError
from mmhiper.utils.progress import progress_bar
from mmhiper.utils.reading import sha256
from mmhiper.utils.sheet import Panel, draw_sheet
from mmhiper.utils.shipped import or_shipped

COLUMNS = 4


@dataclass(frozen=True)
class Photo:
    """A photo to personalise.

    Attributes:
        path: The file.
        source: What it shows.
        targets: What to make of it.
        name: A folder of its own among those of the others.
    """

    path: str
    source: str = ''
    targets: tuple[str, ...] = ()
    name: str = ''


@dataclass(frozen=True)
class _Prepared:
    """A photo that can be learned."""

    photo: Photo
    editor: Any  # of this photo alone
    item: dict[str, Any]  # of its dataset
    source: Panel  # as the model sees it


class Personaliser:
    """Learns and edits photos, a group at a time; it keeps none.

    Args:
        cfg: Config of HiPer, such as that of ``configs/hiper/folder.py``. All
            photos have its settings; its texts and its picture are not used.
        out_dir: Folder of the results.
        drawing: Options of :class:`EditInferencer`, such as
            ``guidance_scale``.

    Raises:
        ValueError: If a setting is wrong, see :func:`check_together`, or the
            editor cannot learn several images in one step.
    """

    def __init__(
        self,
        cfg: Config,
        out_dir: str | Path,
        drawing: Mapping[str, Any] | None = None,
    ) -> None:
        register_all_modules()
        check_together(cfg)
        if not hasattr(MODELS.get(cfg.model.type), 'learned_of'):
            raise UserError(
                f'`images_per_step` is of HiPer, but the config has '
                f'{cfg.model.type}.'
            )
        if cfg.model.get('more_source_texts'):
            raise UserError(
                '`more_source_texts` are of one image: leave them out where '
                'there is `images_per_step`.'
            )
        self.cfg = cfg
        self.out_dir = Path(out_dir)
        self.drawing = dict(drawing or {})

    @cached_property
    def sd(self) -> Any:
        """The frozen model, which all photos share; loaded at first use."""
        sd = MODELS.build({'_scope_': SCOPE, **self.cfg.model.sd})
        sd = sd.to(best_device())
        # a mistake in what all have in common shows here, once
        model = dict(self.cfg.model, source_text='a', target_text=None)
        MODELS.build(dict(model, sd=sd))
        return sd

    def folder(self, photo: Photo) -> Path:
        """Where the results of a photo go."""
        return self.out_dir / photo.name

    def is_done(self, photo: Photo) -> bool:
        """Whether the results of a photo are there, from this very setting.

        Args:
            photo: Its picture and its texts count, not where it lies nor who
                is beside it.
        """
        folder = self.folder(photo)
        if not all((folder / name).is_file() for name in (DONE, EMBEDDING)):
            return False
        with suppress(OSError, UserError):  # a photo that is gone
            wanted = self._described(photo).encode()
            return (folder / DONE).read_bytes() == wanted
        return False

    def _described(self, photo: Photo) -> str:
        """All that decides what the results of a photo are."""
        model = dict(self.cfg.model)
        for name in ('source_text', 'target_text'):
            model.pop(name, None)
        data = dict(self.cfg.train_dataloader.dataset)
        data.pop('img', None)
        # which frozen model that is
        device = model['sd'].get('without_cuda') and best_device().type
        facts = dict(
            photo=sha256(or_shipped(photo.path)),
            source=photo.source,
            targets=photo.targets,
            model=model,
            device=device,
            data=data,
            optim_wrapper=self.cfg.optim_wrapper,
            iterations=self.cfg.train_cfg.max_iters,
            seed=self.cfg.randomness.seed,
            drawing=self.drawing,
        )
        return json.dumps(facts, indent=1, default=str)

    def __call__(self, photos: Sequence[Photo]) -> None:
        """Learns and edits a group; what fails says so in its folder.

        Args:
            photos: One or more, as many as a step of training takes.

        Raises:
            WriteError: If results cannot be written.
        """
        self.sd  # noqa: B018  what is wrong with it is of no one photo
        group: list[_Prepared] = []
        for photo in photos:
            with self._reported(photo):
                group.append(self._prepare(photo))
        if not group:
            return
        states = self._learn(group)
        for one, state in zip(group, states, strict=True):
            with self._reported(one.photo):
                self._finish(one, state)

    @contextmanager
    def _reported(self, photo: Photo) -> Iterator[None]:
        """A step in which an error of one photo does not stop the others."""
        try:
            yield
        except WriteError:
            raise
        except (UserError, OSError) as error:
            print(f'error: {photo.name}: {error}', flush=True)
            with suppress(OSError):
                text = f'{error}\n\n{traceback.format_exc()}'
                path = self.folder(photo) / ERROR
                path.write_text(text, 'utf-8', 'replace')

    def _prepare(self, photo: Photo) -> _Prepared:
        """Reads a photo, and finds mistakes before they cost anything."""
        folder = self.folder(photo)
        check_writable(folder)
        remove_leftovers(folder)
        (folder / DONE).unlink(missing_ok=True)
        data = dict(self.cfg.train_dataloader.dataset, img=photo.path)
        dataset = DATASETS.build(data)
        editor = self._build(photo.source, photo.targets[0])
        check_learnable(self.cfg, dataset, editor)
        source = sources_of(dataset, editor.data_preprocessor).panels[0]
        return _Prepared(photo, editor, dataset[0], source)

    def _build(self, source: str | list[str], target: Any = None) -> Any:
        """An editor on the frozen model that all share."""
        texts = dict(source_text=source, target_text=target)
        model = dict(self.cfg.model, **texts, sd=self.sd)
        return MODELS.build(model).to(best_device())

    def _learn(self, group: list[_Prepared]) -> list[dict[str, Tensor]]:
        """Trains all photos of a group in the same steps."""
        editor = self._build([one.photo.source for one in group])
        return learn_each(editor, [one.item for one in group], self.cfg)

    def _finish(self, one: _Prepared, state: dict[str, Tensor]) -> None:
        """Writes what was learned, draws, and says that all is there."""
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise UserError(
                'Its training diverged: what was learned is not finite. Try '
                'a smaller optim_wrapper.optimizer.lr than '
                f'{self.cfg.optim_wrapper.optimizer.lr}.'
            )
        folder = self.folder(one.photo)
        record = dict(
            one.editor.export_metadata(),
            step=self.cfg.train_cfg.max_iters,
            seed=self.cfg.randomness.seed,
        )
        with atomic_path(folder / EMBEDDING) as path:
            facts = one.editor.model_facts()
            facts |= check_given(self.cfg.get('modelspec'))
            write_export(path, state, record, facts)
        inferencer = EditInferencer(one.editor, folder / EMBEDDING)
        draw_edits(inferencer, one.source, one.photo, folder, self.drawing)
        (folder / ERROR).unlink(missing_ok=True)
        with atomic_path(folder / DONE) as path:
            path.write_text(self._described(one.photo), encoding='utf-8')


def draw_edits(
    inferencer: EditInferencer,
    source: Panel,
    photo: Photo,
    folder: Path,
    drawing: Mapping[str, Any],
) -> Path:
    """Draws the reconstruction and the edits, saves each at once, and a sheet.

    Args:
        inferencer: With what was learned of the photo.
        source: The photo, as the model sees it, with its caption.
        photo: Its texts.
        folder: Of the results.
        drawing: Options of the inferencer.

    Returns:
        The sheet.

    Raises:
        KeyboardInterrupt: At Ctrl-C; it says what is saved.
    """
    # The reconstruction shows what was learned: whole strength, own text.
    edits: list[tuple[str, str, dict[str, Any]]]
    edits = [('reconstruction', photo.source, {'strength': 1.0})]
    edits += [(target, target, {}) for target in photo.targets]
    panels = [source]
    pictures = PictureFolder(folder, len(edits) + 1)
    pictures.add(source[1], dict(photo=Path(photo.path).name))
    try:
        for caption, prompt, options in progress_bar(
            edits, desc='drawing', unit='picture', dynamic_ncols=True
        ):
            result = inferencer(
                prompt, show_progress=False, **drawing, **options
            )
            panels.append((caption, result['samples'][0]))
            pictures.add(panels[-1][1], result['records'][0])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f'Saved: {inferencer.checkpoint}, and {len(panels)} of '
            f'{len(edits) + 1} pictures in {folder}.'
        ) from None
    rows = [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]
    asked = {name: drawing[name] for name in GUIDANCE if name in drawing}
    record = dict(
        source=photo.source,
        targets=list(photo.targets),
        **inferencer.editor.guidance_of(**asked).plain(),
    )
    write_picture(folder / SHEET, draw_sheet(rows), record)
    return folder / SHEET


def personalise(
    photos: Sequence[Photo],
    cfg: Config,
    out_dir: str | Path,
    drawing: Mapping[str, Any] | None = None,
    share: Share | None = None,
) -> dict[str, str]:
    """Learns and edits many photos; goes on where it was stopped.

    Args:
        photos: Each with a name of its own.
        cfg: See :class:`Personaliser`; ``images_per_step`` of them are
            learned at a time. What an image learns does not depend on its
            company, to rounding.
        out_dir: See there.
        drawing: See there.
        share: Which of the photos, by default :meth:`Share.of` this process.

    Returns:
        Why those that failed did, by their names; of several processes the
        first one knows.

    Raises:
        ValueError: If a setting is wrong, or another process has this share.
        KeyboardInterrupt: At Ctrl-C; it says how many are done.
    """
    worker = Personaliser(cfg, out_dir, drawing)
    share = Share.of() if share is None else share
    check_writable(out_dir)
    with run_lock(out_dir, share.lock):
        mine = share.take(photos)
        waiting = [photo for photo in mine if not worker.is_done(photo)]
        if len(waiting) < len(mine):
            print(f'{len(mine) - len(waiting)} of {len(mine)} already done')
        size = cfg.images_per_step
        try:
            for start in range(0, len(waiting), size):
                group = waiting[start : start + size]
                names = ', '.join(photo.name for photo in group)
                print(
                    f'Images {start + 1}-{start + len(group)} of '
                    f'{len(waiting)}  {names}',
                    flush=True,
                )
                worker(group)
        except KeyboardInterrupt:
            done = sum(map(worker.is_done, mine))
            raise KeyboardInterrupt(
                f'{done} of {len(mine)} image(s) are done in {out_dir}; the '
                'same command goes on.'
            ) from None
        if not wait_for_others():
            return {}
        return close(photos, worker)


def close(photos: Sequence[Photo], worker: Personaliser) -> dict[str, str]:
    """Collects the results of all photos, and says where they are.

    Args:
        photos: All of them.
        worker: One of those that have learned them.

    Returns:
        Why those that failed did, by their names.
    """
    failed = collect(photos, worker.out_dir, worker.is_done)
    for name, reason in failed.items():
        print(f'failed        {name}: {reason}')
    print(
        f'Page          {worker.out_dir / PAGE}\n'
        f'Embeddings    {worker.out_dir / EMBEDDINGS}\n'
        f'Failed        {len(failed)} of {len(photos)}\n'
        f'More edits    mmhiper infer {worker.out_dir}/NAME/{EMBEDDING} '
        '--prompt "YOUR TEXT"'
    )
    return failed
