"""Pictures with what was learned: one editor at a time is kept loaded."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from mmhiper.apis import load_editor
from mmhiper.cli import test
from mmhiper.engine.sources import sources_of
from mmhiper.inferencer import EditInferencer
from mmhiper.io import (
    read_picture_record,
    read_token_file,
    write_token_file,
)
from mmhiper.io.known_formats import suffix_of
from mmhiper.many import Photo, draw_edits
from mmhiper.registry import DATASETS, MODELS, SCOPE
from mmhiper.studio.requests import (
    BASELINES,
    PERSONALISED,
    PHOTO,
    UNTRAINED,
    WORD,
    backbone,
)
from mmhiper.studio.runs import CONFIG, Run
from mmhiper.utils import register_all_modules
from mmhiper.utils.config_file import read_config
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import UserError
from mmhiper.utils.picture_files import open_picture
from mmhiper.utils.sheet import Panel, draw_sheet, save_sheet

OWN = 'mmhiper'  # the export that lies beside each checkpoint


class Studio:
    """Draws for all windows, one after another."""

    def __init__(self, pretrained: str | None = None) -> None:
        self._pretrained = pretrained
        self._words: tuple[Any, Any] | None = None
        self._lock = threading.RLock()
        self._key: Any = None
        self._inferencer: EditInferencer | None = None

    @contextmanager
    def inferencer(
        self, checkpoint: Path, embeddings: Sequence[Path] = ()
    ) -> Iterator[EditInferencer]:
        """What draws with a checkpoint; loaded if it was not the last one."""
        files = [checkpoint, *embeddings]
        with self._lock:
            key = [(file, file.stat().st_mtime_ns) for file in files]
            if key != self._key:
                self._key = self._inferencer = None  # room for the next
                self._inferencer = EditInferencer(
                    checkpoint, embeddings=embeddings
                )
                self._key = key
            assert self._inferencer is not None
            yield self._inferencer

    def draw(
        self,
        run: Run,
        prompts: list[str],
        iteration: float | None = None,
        words: Sequence[Run] = (),
        **options: Any,
    ) -> list[Path]:
        """Draws texts into the folder of a run.

        Args:
            run: What draws.
            prompts: The texts.
            iteration: The snapshot nearest to it; the newest if None.
            words: Runs of more words.
            **options: Of `infer`; those that the editor does not know, or
                that its pictures have from elsewhere, are left out.

        Returns:
            The files.
        """
        checkpoint = run.checkpoint()
        if iteration is not None and (known := run.snapshots()):
            checkpoint = known[min(known, key=lambda k: abs(k - iteration))]
        more = [
            each.checkpoint().with_suffix('.safetensors') for each in words
        ]
        with self.inferencer(checkpoint, more) as inferencer:
            editor = inferencer.editor
            if 'strength' not in (editor.further_options() or {}):
                options.pop('strength', None)
            if hasattr(editor, 'invert'):  # its steps are its inversion's
                options.pop('num_inference_steps', None)
            parent = run.folder / 'drawn'
            parent.mkdir(exist_ok=True)
            out_dir = parent / f'{len(list(parent.iterdir())):03d}'
            drawn: list[Path] = inferencer(
                prompts, out_dir=out_dir, show_progress=False, **options
            )['files']
            return drawn

    def say_word(self, placeholder: str, start: str) -> str:
        """Whether a word can be learned from another, while it is typed."""
        if not start.strip():
            return ''
        try:
            self.check_word(placeholder, start)
        except UserError as error:
            return str(error)
        return f'{start.strip()!r} is one word to the model: good.'

    def check_word(self, placeholder: str, start: str) -> None:
        """Raises a `UserError` if it cannot."""
        with self._lock:
            if self._words is None:
                register_all_modules()
                sd = backbone(self._pretrained)
                model = MODELS.build({'_scope_': SCOPE, **sd})
                table = model.token_tables[0].detach().float().cpu().clone()
                self._words = model.vocabulary, table
            vocabulary, table = self._words
        vocabulary.copy().add(placeholder.strip(), 1)
        vocabulary.single_token(start.strip(), table)

    def finish(self, run: Run) -> None:
        """Draws what a run ends with."""
        register_all_modules()
        asked = run.asked()
        with self._lock:
            if asked['kind'] == PERSONALISED:
                self._sheet(run, asked)
            elif asked['kind'] == WORD:
                _report(run)
            else:
                self._key = self._inferencer = None
                _compare(run, asked)

    def _sheet(self, run: Run, asked: dict[str, Any]) -> None:
        """As ``mmhiper edit`` ends."""
        cfg = read_config(run.folder / CONFIG)
        photo = Photo(PHOTO, asked['source'], tuple(asked['targets']))
        drawing = dict(num_inference_steps=asked['steps'])
        with self.inferencer(run.checkpoint()) as inferencer:
            source = sources_of(
                DATASETS.build(cfg.train_dataloader.dataset),
                inferencer.editor.data_preprocessor,
            ).panels[0]
            draw_edits(inferencer, source, photo, run.folder, drawing)


def _report(run: Run) -> None:
    """As ``mmhiper test`` tells of a word."""
    options = argparse.Namespace(
        config=str(run.folder / CONFIG),
        checkpoint=str(run.checkpoint()),
        num_images=2,
        seed=1,
        clip=None,
        out_dir=str(run.folder / 'test'),
        guidance_scale=None,
        guidance_rescale=None,
        guidance_interval=None,
    )
    try:
        test.run(options)
    except UserError as error:  # a backbone with no CLIP to measure with
        run.note(remark=str(error))


def _compare(run: Run, asked: dict[str, Any]) -> None:
    """Each editor's reconstruction and edits in a row, and where words are."""
    rows: list[list[Panel]] = []
    for name in ('', *BASELINES):
        untrained = name in BASELINES[1:]
        file = run.folder / name / (UNTRAINED if untrained else CONFIG)
        if not file.is_file():
            continue
        cfg = read_config(file)
        editor: Any
        if untrained:
            editor = MODELS.build(cfg.model).to(best_device())
            item = DATASETS.build(cfg.train_dataloader.dataset)[0]
            batch = {key: [value] for key, value in item.items()}
            editor.invert(**editor.data_preprocessor(batch))
            editor.eval()
        else:
            editor = load_editor(run.folder / name)
        drawn = editor.infer(
            asked['targets'], return_reconstruction=True, show_progress=False
        )
        title = name or cfg.model.type
        row = [(f'{title}: {asked["source"]}', drawn['reconstructions'][0])]
        row += zip(asked['targets'], drawn['samples'], strict=True)
        rows.append(row)
        if not name:
            maps = editor.show_attention()
            save_sheet(maps, run.folder / 'attention.png')
    save_sheet(draw_sheet(rows), run.folder / 'sheet.png')


def downloads(run: Run, pictures: Sequence[Path], folder: Path) -> list[str]:
    """What was learned, and pictures in one archive if there are any.

    Args:
        run: The run.
        pictures: Some of its own.
        folder: From which files are fetched; what is made gets a new one in
            it.

    Returns:
        The files.
    """
    new = Path(tempfile.mkdtemp(dir=folder))
    learned = new / f'{run.name}.safetensors'
    shutil.copy(run.checkpoint().with_suffix('.safetensors'), learned)
    if not pictures:
        return [str(learned)]
    archive = new / f'{run.name}.zip'
    with zipfile.ZipFile(archive, 'w') as target:
        for file in pictures:
            target.write(file, file.relative_to(run.folder))
    return [str(learned), str(archive)]


def export(run: Run, format: str, folder: Path) -> str:
    """What was learned in a format of the field; see :func:`downloads`."""
    new = Path(tempfile.mkdtemp(dir=folder))
    source = run.checkpoint().with_suffix('.safetensors')
    if format == OWN:
        return str(shutil.copy(source, new / source.name))
    words = read_token_file(source)
    path = new / f'{run.name}{suffix_of(format)}'
    write_token_file(path, words, format)
    return str(path)


def shown(path: Path) -> tuple[Image.Image, str]:
    """A picture of a run, and the words below it."""
    with open_picture(path) as image:
        picture = image.convert('RGB')
    with suppress(UserError):
        record = read_picture_record(path)
        known = 'source' if 'photo' in record else path.stem
        return picture, str(record.get('prompt', known))
    return picture, path.stem
