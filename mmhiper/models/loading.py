"""Where the parts of a frozen model come from: hub, folder or single file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
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
# What editing needs; the safety checker and the image encoder stay on disk.
PARTS = ('unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler')
SECOND_TEXT = ('text_encoder_2', 'tokenizer_2')  # of Stable Diffusion XL
SINGLE_FILE_SUFFIXES = ('.safetensors', '.ckpt')
_MOST_TIMESTEPS = 100_000  # a scheduler has tables of as many numbers
_PICKLED = ('.bin', '.ckpt', '.pt', '.pth')
# What the folder of a single file may name; the library is imported.
_CLASSES = {
    'unet': ('diffusers', 'UNet2DConditionModel'),
    'vae': ('diffusers', 'AutoencoderKL'),
    'text_encoder': ('transformers', 'CLIPTextModel'),
    'tokenizer': ('transformers', 'CLIPTokenizer'),
}
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
        without_cuda: The substitute for machines with no
            accelerator, neither CUDA nor another that PyTorch knows, that
            could hold the weights.

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
        backbone: As ``StableDiffusion.backbone``.

    Returns:
        None for single files and hub ids.
    """
    path = Path(BUNDLED.get(backbone, backbone)).expanduser()
    return path if path.is_dir() else None


def load_parts(
    backbone: str, dtype: torch.dtype, overrides: dict[str, dict | None]
) -> dict[str, Any]:
    """Loads the parts that editing needs, and nothing else.

    Args:
        backbone: As ``pretrained`` of :class:`StableDiffusion`.
        dtype: Precision of the weights.
        overrides: Per part None or a dict, see
            :class:`StableDiffusion`.

    Returns:
        'unet' and 'vae'; 'text_encoders' and 'tokenizers', lists of one
        or two; 'scheduler', a config of any class; 'forces_zeros', whether
        the empty text is zeros.

    Raises:
        FileNotFoundError: If a local path does not exist.
        ValueError: If something cannot be loaded.
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
            f'which does not exist. {_REMEDIES}'
        )
    if path.is_dir() and not (path / 'model_index.json').is_file():
        raise MissingFileError(
            f'The folder {str(path)!r} is not in the diffusers layout: it '
            f'has no model_index.json. {_REMEDIES}'
        )
    source = str(path) if path.exists() else backbone
    with quiet():
        names: tuple[str, ...] = PARTS
        forces_zeros = False
        if single_file:
            parts = _load_single_file(source, dtype)
        else:
            parts = {}
            names, forces_zeros = read_index(source)
        for name in names:
            override = overrides.get(name)
            if name not in parts or (override and 'pretrained' in override):
                parts[name] = load_part(name, source, dtype, override)
    for name in ('text_encoder', 'tokenizer'):
        both = (parts.pop(name), parts.pop(f'{name}_2', None))
        parts[f'{name}s'] = [part for part in both if part is not None]
    if len(parts['tokenizers']) > 1:
        _keep_in_range(parts['vae'])
    return dict(parts, forces_zeros=forces_zeros)


def read_index(source: str) -> tuple[tuple[str, ...], bool]:
    """Tells from a model's index which family it is of.

    Args:
        source: Folder or hub id.

    Returns:
        The names of the parts to load, and
        whether the empty text is zeros.

    Raises:
        ValueError: If it cannot be read, or is no Stable Diffusion.
    """
    import diffusers

    with loading(source, 'model_index.json'):
        index = dict(diffusers.DiffusionPipeline.load_config(source))

    def has(name: str) -> bool:  # parts are [library, class] or nulls
        entry = index.get(name)
        return isinstance(entry, list | tuple) and any(entry[:1])

    missing = [name for name in PARTS if not has(name)]
    second = [name for name in SECOND_TEXT if has(name)]
    if missing or len(second) == 1 or has('text_encoder_3'):
        raise UserError(
            'Wanted a Stable Diffusion 1.x, 2.x or XL (with '
            f'{", ".join(PARTS)}), but {source!r} is a '
            f'{printable(index.get("_class_name"))[:80]} with '
            f'{printable(", ".join(filter(has, index)))[:200] or "no parts"}. '
            f'{_REMEDIES}'
        )
    zeros = bool(second) and index.get('force_zeros_for_empty_prompt', True)
    return (*PARTS, *second), zeros


def _keep_in_range(vae: Any) -> None:
    """Keeps an autoencoder that overflows in half precision out of it.

    That of Stable Diffusion XL does, and says so in its config.

    Args:
        vae: An ``AutoencoderKL``, changed in place.
    """
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.float()


_REMEDIES = (
    'Give a local folder in the diffusers layout (with model_index.json), a '
    "single .safetensors or .ckpt file, a hub id, or 'mini-sd', the small "
    'model that comes with this package.'
)


@contextlib.contextmanager
def loading(
    source: str, what: str, remedies: str = _REMEDIES
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
            _check_weights(path)


def _check_weights(path: Path) -> None:
    """Refuses a file of weights that is more than tensors, or none.

    Args:
        path: The file.

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
        raise FileError(f'Cannot load weights: {error} {_REMEDIES}') from error


def load_part(
    name: str, source: str, dtype: torch.dtype, override: dict | None
) -> Any:
    """Loads one part from a folder or the hub.

    Args:
        name: The part, also its default subfolder.
        source: Folder or hub id of the whole model.
        dtype: Precision of the weights.
        override: See :class:`StableDiffusion`.

    Returns:
        The part; for 'scheduler' its config.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import diffusers
    import transformers

    options = dict(override or {})
    source = str(options.pop('pretrained', source))
    subfolder = options.pop('subfolder', name)
    if name == 'scheduler':  # the rest of the options is its config
        return _load_scheduler(source, subfolder)
    if name.startswith('tokenizer'):
        with loading(source, subfolder):
            return transformers.CLIPTokenizer.from_pretrained(
                source, subfolder=subfolder
            )
    if name == 'text_encoder':
        load = transformers.CLIPTextModel.from_pretrained
        options['dtype'] = dtype
    elif name == 'text_encoder_2':
        load = transformers.CLIPTextModelWithProjection.from_pretrained
        options['dtype'] = dtype
    elif name == 'vae':
        load = diffusers.AutoencoderKL.from_pretrained
        options['torch_dtype'] = dtype
    else:
        load = diffusers.UNet2DConditionModel.from_pretrained
        options['torch_dtype'] = dtype
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
    """The config of a scheduler, of which one can be built.

    Args:
        source: Folder or hub id.
        subfolder: In it.

    Returns:
        The config.

    Raises:
        ValueError: If it cannot be read or is of no scheduler.
    """
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


def _load_single_file(source: str, dtype: torch.dtype) -> dict[str, Any]:
    """Loads all parts from one checkpoint file, tensors only.

    The configs of the parts come from the folder of the file when that is a
    diffusers folder too, as in published repositories; otherwise diffusers
    recognises the model and fetches its small config files from the hub.

    Args:
        source: Path of a ``.safetensors`` or ``.ckpt`` file.
        dtype: Precision of the weights.

    Returns:
        As :func:`load_parts`.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import diffusers

    path = check_file(source, 'the single file of a model')
    _check_weights(path)
    folder = path.resolve().parent
    options = {}
    if (folder / 'model_index.json').is_file():
        options['config'] = str(folder)
        _check_classes(str(folder))
    with loading(source, 'the parts'):
        pipeline = diffusers.StableDiffusionPipeline.from_single_file(
            source,
            torch_dtype=dtype,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            **options,
        )
    if pipeline.unet.config.addition_embed_type is not None:
        raise UserError(
            f'A Stable Diffusion XL cannot be read from the single file '
            f'{source!r}. Give its folder in the diffusers layout or its hub '
            'id.'
        )
    return dict(
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler=dict(pipeline.scheduler.config),
    )


def _check_classes(folder: str) -> None:
    """Refuses an index that names other classes than Stable Diffusion's.

    diffusers imports what the index beside a single file names, whatever
    library that is.

    Args:
        folder: With a model_index.json.

    Raises:
        ValueError: If there are others.
    """
    import diffusers

    with loading(folder, 'model_index.json'):
        index = dict(diffusers.DiffusionPipeline.load_config(folder))
    for name, entry in index.items():
        if name == 'scheduler':
            known = (
                isinstance(entry, list)
                and len(entry) == 2
                and entry[0] == 'diffusers'
                and str(entry[1]).endswith('Scheduler')
            )
        elif name in _CLASSES:
            library, kind = _CLASSES[name]
            known = entry in ([library, kind], [library, f'{kind}Fast'])
        else:  # is not loaded from there
            continue
        if not known:
            raise FileError(
                f'The model_index.json in {folder!r} names '
                f'{printable(entry)[:80]} as its {name}, which is no part of '
                'a Stable Diffusion and is not imported. Move the single '
                'file to a folder of its own, or mend the index.'
            )


def check_vocabulary(backbone: str, tokenizer: Any, text_encoder: Any) -> None:
    """Refuses a tokenizer that does not belong to the text encoder.

    An empty or wrong tokenizer folder gives a tokenizer of two tokens without
    a word, and every text would then mean the same.

    Args:
        backbone: For the message.
        tokenizer: A CLIP tokenizer.
        text_encoder: A CLIP text model.

    Raises:
        ValueError: If the sizes of their vocabularies differ.
    """
    wanted = text_encoder.config.vocab_size
    if len(tokenizer) != wanted:
        raise UserError(
            f'The tokenizer of {backbone!r} has {len(tokenizer)} tokens, but '
            f'its text encoder knows {wanted}. The tokenizer folder is '
            f'missing, empty or of another model. {_REMEDIES}'
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
