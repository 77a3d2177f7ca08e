"""Editors in one call."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor
from tqdm.auto import tqdm

from mmhiper.io import PictureFolder, read_learned, read_state
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import MissingFileError, UserError
from mmhiper.utils.pictures import to_pil
from mmhiper.utils.shipped import shipped
from mmhiper.utils.work_dir import find_checkpoint, find_config
from mmhiper.version import __version__

if TYPE_CHECKING:
    from mmhiper.models import EmbeddingEditor

RETURN_TYPES = ('image', 'tensor', 'numpy')
# Options of `infer` that are noted where they are not given, too.
_RECORDED_DEFAULTS = ('num_inference_steps', 'guidance_scale', 'eta')
# What the inferencer settles itself, or cannot give to several pictures.
_NO_OPTIONS = (
    'generator',
    'latents',
    'num_images_per_prompt',
    'return_reconstruction',
)


def list_editors() -> list[str]:
    """Names the editors that ``MODELS.build`` knows.

    Returns:
        list[str]: Their types, sorted.
    """
    from mmhiper.models import EmbeddingEditor

    return sorted(
        name
        for name, module in MODELS.module_dict.items()
        if isinstance(module, type) and issubclass(module, EmbeddingEditor)
    )


def load_editor(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> EmbeddingEditor:
    """Builds an editor and gives it what it has learned.

    Args:
        config (str, Path or Config): A config, its file, the name of one that
            comes with the project ('hiper/dog'), the work_dir of a training
            run (which holds a copy of its config), or the name of an editor,
            see :func:`list_editors`.
        checkpoint (str or Path, optional): A ``.pth`` checkpoint or a
            ``.safetensors`` export; for Textual Inversion also a file of
            words from elsewhere, see :func:`mmhiper.io.read_token_file`.
            Defaults to the newest checkpoint of the work_dir; with a config
            and no checkpoint the editor is untrained. The name of an editor
            needs one, which then says the rest.
        device (str or torch.device, optional): Defaults to CUDA where there
            is a device, else the CPU.

    Returns:
        EmbeddingEditor: In evaluation mode, ready for ``infer``.

    Raises:
        FileNotFoundError: If a file is missing, or the work_dir has none.
        ValueError: If the checkpoint is of another editor or backbone.
    """
    config, checkpoint = find_run(config, checkpoint)
    # read first: a missing file should not cost the loading of a backbone
    state = None if checkpoint is None else read_state(checkpoint)
    model = config.model.copy()
    if state is not None:
        model.pop('embedding', None)  # that was where its training started
    with DefaultScope.overwrite_default_scope(SCOPE):
        editor: EmbeddingEditor = MODELS.build(model)
    if state is not None:
        editor.load_state_dict(state)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    editor.to(device)
    editor.eval()
    return editor


def find_run(
    config: str | Path | Config, checkpoint: str | Path | None = None
) -> tuple[Config, Path | None]:
    """Finds config and checkpoint of a run, from what :func:`load_editor` got.

    Args:
        config (str, Path or Config): See :func:`load_editor`.
        checkpoint (str or Path, optional): Likewise.

    Returns:
        tuple[Config, Path or None]: Both, the checkpoint where there is one.

    Raises:
        FileNotFoundError: If a file is missing, or the work_dir has none.
        ValueError: If the name of an editor is given, but no checkpoint of
            that editor.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if isinstance(config, Config):
        return config, path
    place = Path(config)
    if place.is_dir():
        return read_config(find_config(place)), (
            path or find_checkpoint(place)
        )
    if str(config) in list_editors() and not place.is_file():
        return _config_of(str(config), path), path
    try:
        return read_config(place), path
    except FileNotFoundError as error:
        if place.is_file():  # a config that it is based on
            raise
        raise MissingFileError(
            f'{error} There is no such work_dir, nor an editor of that name; '
            f'those are {", ".join(list_editors())}.'
        ) from None


def _config_of(editor: str, checkpoint: Path | None) -> Config:
    """The config of an editor, as its checkpoint says it was.

    The parts are those of the first config in this package for the editor,
    backbone and options those that the checkpoint records.

    Args:
        editor (str): Its type.
        checkpoint (Path, optional): A checkpoint or an export.

    Returns:
        Config: Of the model at least.

    Raises:
        ValueError: If there is no checkpoint, it does not say what it belongs
            to or is of another editor, or the package has no config.
    """
    if checkpoint is None:
        raise UserError(
            f'The name of an editor, {editor!r}, needs a checkpoint or an '
            'export, which says what was learned. Name one, or a config.'
        )
    record = read_learned(checkpoint)[1]
    if record.get('editor') != editor:
        raise UserError(
            f'Wanted a checkpoint of the editor {editor!r}, but '
            f'{str(checkpoint)!r} is of {record.get("editor", "an unknown")}.'
        )
    for file in sorted(shipped('configs').glob('[!_]*/*.py')):
        config = read_config(file)
        if config.model.type == editor:
            break
    else:
        raise UserError(
            f'This package has no config for the editor {editor!r}. Name the '
            'config that it was trained with.'
        )
    given = config.model
    known = {*given, *inspect.signature(MODELS.get(editor)).parameters}
    # parts are those of the config; its texts and numbers are of another run
    model = {key: val for key, val in given.items() if isinstance(val, dict)}
    model |= {key: _plain(record[key]) for key in known & set(record)}
    model['sd'].update(pretrained=record['backbone'], without_cuda=None)
    return Config(dict(model=dict(model, type=editor)))


def _plain(text: str) -> Any:
    """A value of ``editor.export_metadata()``, as a config has it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text or None
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class EditInferencer:
    """Draws pictures from texts with an editor, and notes what made them.

    Args:
        model (str, Path, Config or EmbeddingEditor): An editor, or what
            :func:`load_editor` takes: a config, a work_dir or the name of an
            editor.
        checkpoint (str or Path, optional): What the editor has learned, see
            :func:`load_editor`.
        device (str or torch.device, optional): Likewise.
        embeddings (Sequence[str or Path]): Files with words that were learned
            elsewhere, for editors with ``load_embeddings``.

    Attributes:
        editor (EmbeddingEditor): The editor.
        checkpoint (Path, optional): What it has learned came from.
        words (list[str]): The placeholders of ``embeddings``.

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
        model: str | Path | Config | EmbeddingEditor,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
        embeddings: Sequence[str | Path] = (),
    ) -> None:
        self.editor: EmbeddingEditor
        if isinstance(model, str | Path | Config):
            config, self.checkpoint = find_run(model, checkpoint)
            self.editor = load_editor(config, self.checkpoint, device)
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
            self.words = self.editor.load_embeddings(embeddings)
        self.facts = self._find_facts(embeddings)

    def _find_facts(self, embeddings: Sequence[str | Path]) -> dict[str, Any]:
        """What all pictures of this inferencer have in common."""
        learned: dict[str, Any] = dict(self.editor.export_metadata())
        facts = {key: learned.pop(key) for key in ('editor', 'backbone')}
        if self.checkpoint is not None:
            facts['checkpoint'] = _named(self.checkpoint)
        facts['learned'] = learned
        if embeddings:
            facts['embeddings'] = [_named(Path(path)) for path in embeddings]
        facts['versions'] = dict(
            mmhiper=__version__,
            torch=str(torch.__version__),
            diffusers=metadata.version('diffusers'),
        )
        return facts

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
            prompts (str or Sequence[str]): P prompts.
            num_images (int): Pictures per prompt.
            batch_size (int): How many are drawn at the same time; more need
                more memory. It does not change what a picture shows.
            seed (int): Picture n of each prompt draws from a generator of its
                own, seeded with ``seed + n``.
            out_dir (str or Path, optional): Each picture is saved there as
                soon as it is drawn, ``000.png`` and so on, with what made it
                in its metadata and in ``pictures.json``.
            return_type (str): 'image', 'tensor' or 'numpy'.
            show_progress (bool): Whether to show a progress bar.
            **options: Of the editor's ``infer``: ``num_inference_steps``,
                ``guidance_scale``, ``negative_prompt`` (one text), ``height``,
                ``width``, ``eta`` and what the editor adds (``strength``).

        Returns:
            dict: 'samples': B = P * ``num_images`` PIL pictures, those of the
            first prompt first; or a tensor or array, (B, 3, H, W) RGB in
            [-1, 1]. 'records': B dicts, what made each: prompt, seed, options,
            editor, backbone, checkpoint with its SHA-256, versions. 'files':
            their B paths, none without an ``out_dir``.

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
        samples: Any = [to_pil(pixels) for pixels in pictures]
        if return_type != 'image':
            samples = torch.stack(pictures)  # (B, 3, H, W)
        if return_type == 'numpy':
            samples = samples.numpy()
        return dict(samples=samples, records=records, files=files)

    def _draw(
        self,
        jobs: list[tuple[str, int]],
        batch_size: int,
        show_progress: bool,
        options: dict[str, Any],
    ) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Draws batch by batch.

        Args:
            jobs (list[tuple[str, int]]): Prompt and seed of each picture.
            batch_size (int): How many at the same time.
            show_progress (bool): Of the pictures; of the steps where there is
                a single batch.
            options (dict): Of the editor's ``infer``.

        Yields:
            tuple[Tensor, dict]: A picture, (3, H, W) in [-1, 1] on the CPU,
            and what made it.
        """
        common = dict(self.facts, options=self._options_with(options))
        single = len(jobs) <= batch_size
        with tqdm(
            total=len(jobs),
            desc='drawing',
            unit='picture',
            dynamic_ncols=True,
            disable=single or not show_progress,
        ) as bar:
            for start in range(0, len(jobs), batch_size):
                batch = jobs[start : start + batch_size]
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
    if return_type not in RETURN_TYPES:
        raise UserError(
            f'`return_type` must be one of {RETURN_TYPES}, but got '
            f'{return_type!r}.'
        )
    for name in _NO_OPTIONS:
        if name in options:
            raise UserError(
                f'`{name}` is no option of an inferencer, whose pictures have '
                'seeds of their own; call `inferencer.editor.infer(...)`.'
            )
    if not isinstance(options.get('negative_prompt', ''), str | None):
        raise UserError(
            '`negative_prompt` must be one text for all pictures, but got '
            f'{options["negative_prompt"]!r}.'
        )


def _named(path: Path) -> dict[str, str]:
    """Tells a file from all others, wherever it lies."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(file=path.name, sha256=digest)
