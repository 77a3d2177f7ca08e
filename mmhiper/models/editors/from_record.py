"""Editors built from what a checkpoint or an export says, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from mmengine.logging import print_log

from mmhiper.io.record import Record
from mmhiper.models.backbones import StableDiffusion
from mmhiper.models.backbones.record import config_of_record
from mmhiper.models.editors.base import Editor
from mmhiper.models.loading import check_model_name
from mmhiper.registry import MODELS
from mmhiper.utils.arguments import arguments_of, check_arguments
from mmhiper.utils.errors import FileError, MissingFileError, UserError

# Installed packages announce their editors here, by their types:
# [project.entry-points.'mmhiper.editors']
# TextInterpolation = 'interpolation:TextInterpolation'
ENTRY_POINTS = 'mmhiper.editors'
_NAME_THE_CONFIG = 'Name the config that it was trained with before the file.'


def list_editors() -> list[str]:
    """Names the editors there are, those of installed packages too.

    Returns:
        Their types, sorted.
    """
    MODELS.import_from_location()
    announced = metadata.entry_points(group=ENTRY_POINTS).names
    return sorted({*filter(_registered, MODELS.module_dict), *announced})


def _registered(name: str) -> type[Editor] | None:
    """An editor of our registry alone; the names of others are no editors."""
    kind = MODELS.module_dict.get(name)
    if isinstance(kind, type) and issubclass(kind, Editor):
        return kind
    return None


def find_editor(name: str) -> type[Editor] | None:
    """Finds the class of an editor.

    Args:
        name: Its type. It never leads to an import, but for the entry point
            that an installed package announces by this very name.

    Returns:
        None if there is none.
    """
    MODELS.import_from_location()
    if _registered(name) is None:
        for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
            entry.load()  # which registers it
    return _registered(name)


def build_editor(record: Record, backbone: str | None = None) -> Editor:
    """Builds an editor as it was when it learned.

    Args:
        record: What the file says; it is checked field by field against the
            constructors before they see it.
        backbone: Of a user who knows better than the file where the frozen
            model is.

    Returns:
        With nothing learned in it yet.

    Raises:
        ValueError: If a field is unknown or of a wrong type, the editor is
            not installed, or the backbone not to be had.
    """
    assert record.editor is not None and record.arguments is not None
    kind = find_editor(record.editor)
    if kind is None:
        raise FileError(
            f'{str(record.path)!r} is of the editor {record.editor!r}, but '
            f'there are {", ".join(list_editors())}. Install the package that '
            'has it, or import its module first.'
        )
    known = arguments_of(kind)
    known.pop('sd', None)
    arguments = record.arguments
    try:
        options = config_of_record(record.sd or {})
        check_arguments(arguments, known)
    except ValueError as fault:
        raise _does_not_fit(record, fault) from None
    for name in {*_models_in(options), *_models_in(arguments)}:
        _check_model(name, record, _NAME_THE_CONFIG)
    if backbone is None:
        backbone = record.backbone or ''
        _check_model(
            backbone,
            record,
            'Say where it is now with --backbone (`backbone=`).',
        )
        print_log(
            f'Backbone: {backbone!r}, as {record.path.name} says; --backbone '
            '(`backbone=`) takes another.',
            logger='current',
            level=logging.INFO,
        )
    sd = StableDiffusion(backbone, **options)
    try:
        return kind(sd=sd, **arguments)
    except (TypeError, ValueError) as fault:
        raise _does_not_fit(record, fault) from fault


def _does_not_fit(record: Record, fault: Exception) -> FileError:
    """Words what keeps an editor from being built."""
    return FileError(
        f'The record of {str(record.path)!r} does not fit the editor '
        f'{record.editor}: {fault} {_NAME_THE_CONFIG}'
    )


def _models_in(values: Mapping[str, Any]) -> Iterator[str]:
    """The models that nested values name."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _models_in(value)
        elif name in ('pretrained', 'without_cuda') and value is not None:
            yield str(value)


def _check_model(name: str, record: Record, remedy: str) -> None:
    """Refuses a model that the file may not name, naming the file."""
    try:
        check_model_name(name)
    except UserError as error:
        missing = isinstance(error, MissingFileError)
        raise (MissingFileError if missing else FileError)(
            f'In {str(record.path)!r}: {error} {remedy}'
        ) from None
