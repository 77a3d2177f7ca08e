"""Where the parts of a frozen model come from: hub, folder or single file."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

from mmhiper.io.file_content import is_safetensors
from mmhiper.io.torch_file import check_torch_file
from mmhiper.utils.devices import accelerator, lacks_room
from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.file_kinds import wrong_kind
from mmhiper.utils.reading import check_file, printable, reason_of

MINI_SD = 'mini-sd'
BUNDLED = {MINI_SD: Path(__file__).parents[1] / 'pretrained' / MINI_SD}
DTYPES = {
    'fp32': torch.float32,
    'bf16': torch.bfloat16,
    'fp16': torch.float16,
}
SINGLE_FILE_SUFFIXES = ('.safetensors', '.ckpt')
_INDEX = 'model_index.json'
_MOST_TIMESTEPS = 100_000  # a scheduler has tables of as many numbers
SCHEDULER = 'scheduler'  # its folder, in all families
_PICKLED = ('.bin', '.ckpt', '.pt', '.pth')
_DEVICES = ('dev', 'proc', 'sys')  # of Linux


@dataclass(frozen=True)
class PartSource:
    """Where a single part of a model comes from.

    Attributes:
        pretrained: Hub id or folder.
        subfolder: In it.
        variant: Of its files, such as 'fp16'.
        revision: Of the hub.
    """

    pretrained: str | None = None
    subfolder: str | None = None
    variant: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class PartKind:
    """What a part of a family is, and where its models have it.

    Attributes:
        folder: In the diffusers layout, also its name in the index.
        kind: The dotted name of its class.
        optional: Whether a model may lack it.
    """

    folder: str
    kind: str
    optional: bool = False

    @property
    def loader(self) -> Any:
        """The class, imported."""
        module, _, name = self.kind.rpartition('.')
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class ModelSource:
    """A model that is to be loaded, before any weight is read.

    Attributes:
        name: As the config says it.
        path: Hub id, folder or single file.
        single_file: Whether it is the last.
        index: Its ``model_index.json``; of a single file that of its folder,
            empty where there is none.
    """

    name: str
    path: str
    single_file: bool
    index: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Where its parts are, those that are not in a single file."""
        if self.single_file:
            return str(Path(self.path).resolve().parent)
        return self.path

    @property
    def folders(self) -> set[str]:
        """The parts that the index says are there."""
        return {
            name
            for name, entry in self.index.items()
            # [library, class], nulls for what a model goes without
            if isinstance(entry, list | tuple) and any(entry[:1])
        }


def check_model_name(name: str) -> None:
    """Refuses what a file may not name as a model.

    What it may name is read as data: weights-only, by classes of our choice.

    Args:
        name: From a file.

    Raises:
        ValueError: If it is neither a bundled model, nor a hub id, nor a
            folder or single file of this machine.
    """
    if name in BUNDLED:
        return
    if re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', name) and '..' not in name:
        return
    # os.path says no where Path would raise
    path = os.path.expanduser(name)
    if (
        re.match(r'[\\/]{2}|\w{2,}:', name)  # another machine, or a URL
        or not name.isprintable()
        or Path(path).parts[:2] in [('/', each) for each in _DEVICES]
    ):
        raise UserError(
            f'{name!r:.200} is no model that a file may name: wanted a hub '
            f'id (owner/name), a folder, a single file, or {MINI_SD!r}.'
        )
    single = path.endswith(SINGLE_FILE_SUFFIXES) and os.path.isfile(path)
    if not (os.path.isdir(path) or single):
        raise MissingFileError(
            f'{name!r:.200} is neither a hub id (owner/name) nor a model on '
            'this machine.'
        )


def choose_backbone(pretrained: str, without_cuda: str | None) -> str:
    """Decides what this machine loads, and says so once.

    Args:
        pretrained: What the config names.
        without_cuda: The substitute for machines with no CUDA device.

    Returns:
        One of the two.
    """
    device = accelerator()
    small = device is not None and lacks_room(pretrained, device)
    if without_cuda is None or (device is not None and not small):
        return pretrained
    lack = 'No CUDA device, nor another accelerator'
    if small:
        lack = f'The device {str(device)!r} has too little memory'
    print_log(
        f'{lack}: using {without_cuda!r} in place of {pretrained!r} '
        '(`without_cuda` of the config; None keeps the original).',
        logger='current',
        level=logging.INFO,
    )
    return without_cuda


def backbone_folder(backbone: str) -> Path | None:
    """The folder of a backbone that lies on this machine.

    Args:
        backbone: As ``Backbone.backbone``.

    Returns:
        None for single files and hub ids.
    """
    path = Path(BUNDLED.get(backbone, backbone)).expanduser()
    return path if path.is_dir() else None


def find_source(backbone: str) -> ModelSource:
    """Finds a model, and reads what it says it is.

    Args:
        backbone: As ``pretrained`` of :class:`StableDiffusion`.

    Returns:
        Of which nothing else is read yet.

    Raises:
        FileNotFoundError: If a local path does not exist.
        ValueError: If its index cannot be read.
    """
    path = Path(BUNDLED.get(backbone, backbone)).expanduser()
    single_file = path.suffix in SINGLE_FILE_SUFFIXES
    looks_local = (
        backbone in BUNDLED
        or single_file
        or path.is_absolute()
        or backbone.startswith(('.', '~'))
        or backbone.count('/') > 1
    )
    if looks_local and not path.exists():
        raise MissingFileError(
            f'`pretrained` names a local file or folder, {str(path)!r}, '
            f'which does not exist. {REMEDIES}'
        )
    if path.is_dir() and not (path / _INDEX).is_file():
        raise MissingFileError(
            f'The folder {str(path)!r} is not in the diffusers layout: it '
            f'has no {_INDEX}. {REMEDIES}'
        )
    source = str(path) if path.exists() else backbone
    found = ModelSource(backbone, source, single_file, {})
    if single_file and not Path(found.folder, _INDEX).is_file():
        return found
    return replace(found, index=_read_index(found.folder))


def _read_index(source: str) -> dict[str, Any]:
    """The index of a folder or hub id."""
    import diffusers

    with quiet(), loading(source, _INDEX):
        return dict(diffusers.DiffusionPipeline.load_config(source))


def load_parts(
    source: ModelSource,
    kinds: Mapping[str, PartKind],
    dtype: torch.dtype,
    overrides: Mapping[str, dict | None],
    read: Mapping[str, Any],
) -> dict[str, Any]:
    """Loads the parts of a family, and nothing else.

    Args:
        source: The model.
        kinds: The parts, by the names they get.
        dtype: Precision of the weights.
        overrides: By the same names None or a dict, see :class:`Backbone`.
        read: What a single file had.

    Returns:
        The parts by name, without optional ones that the model lacks;
        'scheduler', a config of any class.

    Raises:
        ValueError: If something cannot be loaded.
    """
    there = {
        name: kind
        for name, kind in kinds.items()
        if not kind.optional or kind.folder in source.folders
    }
    there[SCHEDULER] = PartKind(SCHEDULER, '')
    parts = dict(read)
    with quiet():
        for name, kind in there.items():
            override = overrides.get(name)
            if name not in parts or (override and 'pretrained' in override):
                parts[name] = load_part(kind, source.folder, dtype, override)
    return parts


REMEDIES = (
    'Give a local folder in the diffusers layout (with model_index.json), a '
    "single .safetensors or .ckpt file, a hub id, or 'mini-sd', the small "
    'model that comes with this package.'
)


@contextlib.contextmanager
def loading(
    source: str, what: str, remedies: str = REMEDIES
) -> Iterator[None]:
    """Tells in one line why a library cannot load something.

    Nothing but calls of the library belongs inside.

    Args:
        source: What it is loaded from.
        what: Which part of it.
        remedies: What to do about it.

    Yields:
        None

    Raises:
        ValueError: In place of what the library raises, which is nearly
            anything where a file is damaged.
    """
    try:
        yield
    except (UserError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of the tokenizers, too, in Rust
        raise FileError(
            f'Cannot load {what} of {source!r}: {reason_of(error)}. If it is '
            'a hub id, check its spelling, the network connection and '
            f'whether its licence has to be accepted first. {remedies}'
        ) from error


def check_weights(source: str, subfolder: str = '') -> None:
    """Refuses weights in a local folder that are more than tensors.

    The libraries load weights-only too; this also knows files that would
    take more memory than they have bytes.

    Args:
        source: A folder, or the id of a hub, which is left alone.
        subfolder: The part in it.

    Raises:
        ValueError: If a file is no such one.
    """
    folder = Path(source, subfolder)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in (*_PICKLED, '.safetensors'):
            check_weight_file(path)


def check_weight_file(path: Path) -> None:
    """Refuses a file of weights that is more than tensors, or none.

    Args:
        path: A ``.safetensors`` file, or one of PyTorch.

    Raises:
        ValueError: If it is.
    """
    try:
        check_file(path, 'weights')
        if path.suffix != '.safetensors':
            check_torch_file(path)
        elif not is_safetensors(path):
            # as where a clone has fetched pointers in place of large files
            kind = wrong_kind(path, 'weights')
            if kind is not None:
                raise FileError(kind)
    except UserError as error:
        raise FileError(f'Cannot load weights: {error} {REMEDIES}') from error


def load_part(
    kind: PartKind, source: str, dtype: torch.dtype, override: dict | None
) -> Any:
    """Loads one part from a folder or the hub.

    Args:
        kind: The part, with its default subfolder.
        source: Folder or hub id of the whole model.
        dtype: Precision of the weights.
        override: See :class:`Backbone`.

    Returns:
        The part; for 'scheduler' its config.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import transformers

    options = dict(override or {})
    source = str(options.pop('pretrained', source))
    subfolder = options.pop('subfolder', kind.folder)
    if kind.folder == SCHEDULER:  # the rest of the options is its config
        return _load_scheduler(source, subfolder)
    loader = kind.loader
    if issubclass(loader, transformers.PreTrainedTokenizerBase):
        with loading(source, subfolder):
            return loader.from_pretrained(source, subfolder=subfolder)
    of_transformers = issubclass(loader, transformers.PreTrainedModel)
    options['dtype' if of_transformers else 'torch_dtype'] = dtype
    load = loader.from_pretrained
    check_weights(source, subfolder)
    with loading(source, subfolder):
        try:
            return load(source, subfolder=subfolder, **options)
        except OSError:
            if 'variant' in options:
                raise
            # Some folders have half-precision files only, under names of
            # their own. Without those too, the first error tells more.
            with contextlib.suppress(OSError, ValueError):
                return load(
                    source, subfolder=subfolder, variant='fp16', **options
                )
            raise


def _load_scheduler(source: str, subfolder: str) -> dict[str, Any]:
    """The config of a scheduler, of which one can be built."""
    import diffusers

    with loading(source, subfolder):
        config = dict(
            diffusers.DDIMScheduler.load_config(source, subfolder=subfolder)
        )
    steps = config.get('num_train_timesteps', 1000)
    if type(steps) is not int or not 0 < steps <= _MOST_TIMESTEPS:
        raise FileError(
            f'The scheduler of {source!r} must have from 1 to '
            f'{_MOST_TIMESTEPS} `num_train_timesteps`, but its config says '
            f'{printable(steps)[:80]}.'
        )
    with loading(source, subfolder), quiet():
        diffusers.DDIMScheduler.from_config(config)
    return config


def check_vocabulary(
    backbone: str, tokenizer: Any, text_encoder: Any, multiple: int = 1
) -> None:
    """Refuses a tokenizer that does not belong to the text encoder.

    An empty or wrong tokenizer folder gives a tokenizer of two tokens without
    a word, and every text would then mean the same.

    Args:
        backbone: For the message.
        tokenizer: A tokenizer.
        text_encoder: A text model.
        multiple: What the size of its table is rounded up to.

    Raises:
        ValueError: If the sizes of their vocabularies differ.
    """
    wanted = text_encoder.config.vocab_size
    if -(-len(tokenizer) // multiple) * multiple != wanted:
        raise UserError(
            f'The tokenizer of {backbone!r} has {len(tokenizer)} tokens, but '
            f'its text encoder knows {wanted}. The tokenizer folder is '
            f'missing, empty or of another model. {REMEDIES}'
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the loading bars and advice of the libraries for a while.

    Download bars of the hub stay: gigabytes deserve one.

    Yields:
        None
    """
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
