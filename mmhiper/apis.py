"""Editors in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmhiper.io import read_learned, read_state
from mmhiper.io.checkpoint import SUFFIXES, forget_backbone
from mmhiper.io.record import Record
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils.config_file import read_config
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.work_dir import find_checkpoint

if TYPE_CHECKING:
    from mmhiper.models.editors import Editor


def list_editors() -> list[str]:
    """Names the editors there are, those of installed packages too.

    Returns:
        Their types, sorted.
    """
    from mmhiper.models.editors import from_record

    return from_record.list_editors()


def load_editor(
    config: str | Path | Config | Record,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    backbone: str | None = None,
) -> Editor:
    """Builds an editor and gives it what it has learned.

    A checkpoint is data, and says itself how it was made. A Python config is
    code: it runs when it is named here, and is not looked at otherwise.

    Args:
        config: A checkpoint or export alone; the
            work_dir of a training run, or the name of an editor, see
            :func:`list_editors`, for the same; a config, its file, or the
            name of one that comes with the project ('hiper/dog').
        checkpoint: A ``.pth`` checkpoint or a
            ``.safetensors`` export; for Textual Inversion also a file of
            words from elsewhere, see :func:`mmhiper.io.read_token_file`.
            Defaults to the newest checkpoint of the work_dir; with a config
            and no checkpoint the editor is untrained.
        device: Defaults to the accelerator
            that PyTorch offers (CUDA, mps, xpu ...), else the CPU.
        backbone: The frozen model, in place of the one that
            the checkpoint or the config names: a hub id, folder or file.

    Returns:
        In evaluation mode, ready for ``infer``.

    Raises:
        FileNotFoundError: If a file is missing, or the work_dir has none.
        ValueError: If the checkpoint is of another editor or backbone, or
            does not say what made it.
    """
    from mmhiper.models.editors.from_record import build_editor

    source, checkpoint = find_run(config, checkpoint)
    # read first: a missing file should not cost the loading of a backbone
    state = None if checkpoint is None else read_state(checkpoint)
    editor: Editor
    if isinstance(source, Record):
        editor = build_editor(source, backbone)
    else:
        model = dict(source.model)
        if state is not None:
            model.pop('embedding', None)  # that was where its training began
        if backbone is not None:
            named = dict(pretrained=backbone, without_cuda=None)
            model['sd'] = dict(model['sd'], **named)
        with DefaultScope.overwrite_default_scope(SCOPE):
            editor = MODELS.build(model)
    if state is not None:
        if backbone is not None:  # the user says that it is the same
            forget_backbone(state)
        editor.load_state_dict(state)
    editor.to(best_device() if device is None else device)
    editor.eval()
    return editor


def find_run(
    config: str | Path | Config | Record, checkpoint: str | Path | None = None
) -> tuple[Config | Record, Path | None]:
    """Finds what an editor is built from, and what it has learned.

    Args:
        config: See :func:`load_editor`.
        checkpoint: Likewise.

    Returns:
        The config where one is named, else what the checkpoint says; and the
        checkpoint, if there is one.

    Raises:
        FileNotFoundError: If a file is missing, or the work_dir has none.
        ValueError: If the name of an editor is given, but no checkpoint of
            that editor; or a checkpoint does not say what made it.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if isinstance(config, Config | Record):
        return config, path
    place = Path(config)
    if place.is_dir():
        path = path or find_checkpoint(place)
        return _record_of(path), path
    if place.suffix in SUFFIXES and path is None:
        return _record_of(place), place
    if str(config) in list_editors() and not place.is_file():
        return _record_by_name(str(config), path), path
    try:
        return read_config(place), path
    except FileNotFoundError as error:
        if place.is_file():  # a config that it is based on
            raise
        raise MissingFileError(
            f'{error} There is no such work_dir, nor an editor of that name; '
            f'those are {", ".join(list_editors())}.'
        ) from None


def _record_of(checkpoint: Path) -> Record:
    """What a checkpoint says about itself, enough to build its editor."""
    record = read_learned(checkpoint)[1]
    if record.editor is None or record.arguments is None:
        raise FileError(
            f'{str(checkpoint)!r} does not say what made it: a training '
            'without ExportHook wrote it. Name the config too, which is code '
            f'that runs: load_editor(CONFIG, {str(checkpoint)!r}), or '
            f'"mmhiper infer CONFIG {checkpoint}".'
        )
    return record


def _record_by_name(editor: str, checkpoint: Path | None) -> Record:
    """Likewise, of a checkpoint that is to be of a certain editor."""
    if checkpoint is None:
        raise UserError(
            f'The name of an editor, {editor!r}, needs a checkpoint or an '
            'export, which says what was learned. Name one, or a config.'
        )
    record = _record_of(checkpoint)
    if record.editor != editor:
        raise UserError(
            f'Wanted a checkpoint of the editor {editor!r}, but '
            f'{str(checkpoint)!r} is of {record.editor}.'
        )
    return record
