"""Pictures from texts with an editor, and what made each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from mmhiper.apis import find_run, load_editor
from mmhiper.io import PictureFolder, read_state
from mmhiper.io.record import Record
from mmhiper.models.start_pictures import DENOISE, Picture
from mmhiper.utils.arguments import ChecksArguments, checked
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import (
    as_return_type,
    check_return_type,
    image_key,
    to_pil,
)
from mmhiper.utils.progress import progress_bar
from mmhiper.utils.reading import check_file, sha256
from mmhiper.utils.warned import each_once
from mmhiper.version import __version__

if TYPE_CHECKING:
    from mmhiper.models.editors import Editor

# Options of `infer` that are noted where they are not given, too.
_RECORDED_DEFAULTS = ('num_inference_steps', 'eta')
# Those whose numbers are noted as they are really used.
GUIDANCE = ('guidance_scale', 'guidance_rescale', 'guidance_interval')
# What the inferencer settles itself, or cannot give to several pictures.
_NO_OPTIONS = (
    'generator',
    'latents',
    'num_images_per_prompt',
    'return_reconstruction',
)


class EditInferencer(ChecksArguments):
    """Draws pictures from texts with an editor, and notes what made them.

    Args:
        model: An editor, or what :func:`load_editor` takes: a checkpoint, a
            work_dir, the name of an editor or a config.
        checkpoint: What the editor has learned, see :func:`load_editor`.
        device: Likewise.
        embeddings: Files with words that were learned elsewhere, for editors
            with ``load_embeddings``.
        backbone: See :func:`load_editor`.
        rename: New words by those of the embedding files.

    Attributes:
        editor: The editor.
        checkpoint: What it has learned came from.
        words: The placeholders of ``embeddings``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If files do not fit together.

    Example:
        >>> inferencer = EditInferencer('work_dirs/dog')
        >>> result = inferencer(
        ...     ['a sitting dog', 'a running dog'],
        ...     num_images=4, batch_size=2, out_dir='out')
    """

    def __init__(
        self,
        model: str | Path | Config | Record | Editor,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
        embeddings: Sequence[str | Path] = (),
        backbone: str | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        self.editor: Editor
        if isinstance(model, str | Path | Config | Record):
            source, self.checkpoint = find_run(model, checkpoint)
            self.editor = load_editor(
                source, self.checkpoint, device, backbone
            )
        else:
            self.editor = model.eval()
            self.checkpoint = None if checkpoint is None else Path(checkpoint)
            if device is not None:
                self.editor.to(device)
            if checkpoint is not None:
                self.editor.load_state_dict(read_state(checkpoint))
        self.words: list[str] = []
        if embeddings:
            if not hasattr(self.editor, 'load_embeddings'):
                raise UserError(
                    'Embedding files need an editor whose texts have learned '
                    'words in them, TextualInversion, but this is '
                    f'{type(self.editor).__name__}.'
                )
            self.words = self.editor.load_embeddings(embeddings, rename)
        elif rename:
            raise UserError(
                f'`rename` has {", ".join(map(repr, rename))}, but there are '
                'no embedding files (`embeddings`) with words to rename.'
            )
        self.facts = self._find_facts(embeddings)

    def _find_facts(self, embeddings: Sequence[str | Path]) -> dict[str, Any]:
        """What all pictures of this inferencer have in common."""
        record = self.editor.export_metadata()
        facts = {key: record[key] for key in ('editor', 'backbone', 'sd')}
        if self.checkpoint is not None:
            facts['checkpoint'] = _named(self.checkpoint)
        facts['learned'] = record['arguments']
        if embeddings:
            facts['embeddings'] = [_named(Path(path)) for path in embeddings]
        facts['versions'] = dict(
            mmhiper=__version__,
            torch=str(torch.__version__),
            diffusers=metadata.version('diffusers'),
        )
        return facts

    @checked
    def __call__(
        self,
        prompts: str | Sequence[str],
        num_images: int = 1,
        batch_size: int = 1,
        seed: int = 1,
        out_dir: str | Path | None = None,
        return_type: str = 'image',
        show_progress: bool = True,
        **options: Any,
    ) -> dict[str, Any]:
        """Draws pictures.

        Args:
            prompts: P prompts.
            num_images: Pictures per prompt.
            batch_size: How many are drawn at the same time; more need more
                memory. It does not change what a picture shows.
            seed: Picture n of each prompt draws from a generator of its own,
                seeded with ``seed + n``.
            out_dir: Each picture is saved there as soon as it is drawn,
                ``000.png`` and so on, with what made it in its metadata and in
                ``pictures.json``.
            return_type: 'image', 'tensor' or 'numpy'.
            show_progress: Whether to show a progress bar.
            **options: Of the editor's ``infer``: ``num_inference_steps``,
                ``guidance_scale``, ``guidance_rescale``,
                ``guidance_interval``, ``negative_prompt`` (one text),
                ``height``, ``width``, ``eta``, ``image``, ``mask`` (one for
                all pictures), ``denoise`` and what the editor adds
                (``strength``).

        Returns:
            'samples': B = P * ``num_images`` PIL pictures, those of the first
            prompt first; or a tensor or array, (B, 3, H, W) RGB in [-1, 1].
            'records': B dicts, what made each: prompt, seed, options, editor,
            backbone, checkpoint with its SHA-256, versions. 'files': their B
            paths, none without an ``out_dir``.

        Raises:
            ValueError: If an argument is out of its range.
            KeyboardInterrupt: At Ctrl-C; it says how many are saved.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        _check_call(prompts, num_images, batch_size, return_type, options)
        jobs = [
            (prompt, seed + n) for prompt in prompts for n in range(num_images)
        ]
        folder = None
        if out_dir is not None:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
            folder = PictureFolder(out_dir, len(jobs))
        pictures, records, files = [], [], []
        try:
            with each_once():
                for pixels, record in self._draw(
                    jobs, batch_size, show_progress, options
                ):
                    if folder is not None:
                        files.append(folder.add(to_pil(pixels), record))
                    pictures.append(pixels)
                    records.append(record)
        except KeyboardInterrupt:
            saved = f'{len(files)} of {len(jobs)} picture(s) are in {out_dir}.'
            raise KeyboardInterrupt(saved if files else '') from None
        samples = as_return_type(torch.stack(pictures), return_type)
        return dict(samples=samples, records=records, files=files)

    def _draw(
        self,
        jobs: list[tuple[str, int]],
        batch_size: int,
        show_progress: bool,
        options: dict[str, Any],
    ) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Draws batch by batch."""
        # jobs: prompt and seed of each picture; each comes as (3, H, W) in
        # [-1, 1] on the CPU, with what made it
        common = dict(self.facts, options=self._options_with(options))
        single = len(jobs) <= batch_size
        known = inspect.signature(self.editor.infer).parameters
        with progress_bar(
            total=len(jobs),
            desc='drawing',
            unit='picture',
            dynamic_ncols=True,
            disable=single or not show_progress,
        ) as bar:
            for start in range(0, len(jobs), batch_size):
                batch = jobs[start : start + batch_size]
                if 'batch_size' in known:  # as was asked for
                    options = dict(options, batch_size=len(batch))
                drawn = self.editor.infer(
                    [prompt for prompt, _ in batch],
                    generator=[
                        torch.Generator().manual_seed(seed)
                        for _, seed in batch
                    ],
                    show_progress=single and show_progress,
                    return_type='tensor',
                    **options,
                )['samples']
                for (prompt, seed), pixels in zip(batch, drawn, strict=True):
                    made = dict(prompt=prompt, seed=seed, **common)
                    if self.editor.deterministic:
                        made['seed'] = None  # nothing was drawn at random
                    yield pixels, made
                    bar.update()

    def _options_with(self, given: dict[str, Any]) -> dict[str, Any]:
        """The options of ``infer`` that decide a picture, defaults too."""
        parameters = inspect.signature(self.editor.infer).parameters
        options = {
            name: parameters[name].default for name in _RECORDED_DEFAULTS
        } | given
        if isinstance(options.get('image'), Picture):
            options.setdefault('denoise', DENOISE)
        for name in ('image', 'mask'):
            if isinstance(options.get(name), Picture):
                options[name] = _of_picture(options[name])
        asked = {key: options.pop(key) for key in GUIDANCE if key in options}
        options |= self.editor.guidance_of(**asked).plain()
        return {key: val for key, val in options.items() if val is not None}


def _check_call(
    prompts: list[str],
    num_images: int,
    batch_size: int,
    return_type: str,
    options: dict[str, Any],
) -> None:
    """Refuses arguments of a call that cannot be drawn."""
    if not prompts:
        raise UserError('`prompts` must hold at least one text, got none.')
    for name, number in (
        ('num_images', num_images),
        ('batch_size', batch_size),
    ):
        if number < 1:
            raise UserError(f'`{name}` must be at least 1, but got {number}.')
    check_return_type(return_type)
    for name in _NO_OPTIONS:
        if name in options:
            raise UserError(
                f'`{name}` is no option of an inferencer, whose pictures have '
                'seeds of their own; call `inferencer.editor.infer(...)`.'
            )
    for name in ('image', 'mask'):
        given = options.get(name)
        several = isinstance(given, torch.Tensor) and given.ndim > 3
        if several or isinstance(given, list | tuple):
            raise UserError(
                f'`{name}` must be one for all pictures of an inferencer, but '
                'got several; call `inferencer.editor.infer(...)`.'
            )
    if not isinstance(options.get('negative_prompt', ''), str | None):
        raise UserError(
            '`negative_prompt` must be one text for all pictures, but got '
            f'{options["negative_prompt"]!r}.'
        )


def _of_picture(picture: Picture) -> dict[str, str]:
    """Tells a picture to begin with from all others."""
    if isinstance(picture, str | Path):
        return _named(check_file(picture, 'an image file'))
    if isinstance(picture, Image.Image):
        picture = torch.from_numpy(np.array(picture))
    return dict(pixels=image_key(picture.detach()))


def _named(path: Path) -> dict[str, str]:
    """Tells a file from all others, wherever it lies."""
    return dict(file=path.name, sha256=sha256(path))
