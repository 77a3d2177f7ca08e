"""What learned tensors belong to: one typed document beside them.

An editor writes it, see ``Editor.export_metadata``. It is data: its
values are texts, numbers, booleans, None, lists and dicts of them, which the
constructor of the editor is checked against before it sees them.

    {"version": 1, "editor": "HiPer", "backbone": "mini-sd",
     "sd": {"dtype": "fp32", ...}, "arguments": {"n_hiper": 5, ...},
     "step": 1200, "seed": 0}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmhiper.utils.arguments import check_plain
from mmhiper.utils.errors import FileError
from mmhiper.utils.reading import printable

# The entry of `meta` in a checkpoint, of the metadata in an export.
KEY = 'embedding'
VERSION = 1
MOST_CHARACTERS = 1_000_000
_NAME = r'[A-Za-z_]\w{0,79}'  # of a class
_FIELDS: dict[str, tuple[type, ...]] = dict(
    version=(int,),
    editor=(str,),
    backbone=(str,),
    sd=(dict,),
    arguments=(dict,),
    step=(int, type(None)),
    seed=(int, type(None)),
)


@dataclass(frozen=True)
class Record:
    """What a checkpoint or an export says about its tensors.

    Attributes:
        path: The file.
        editor: Type of the editor; like all that follows None where the file
            does not say.
        backbone: The frozen model that it was really on.
        arguments: The constructor values of the editor, without the frozen
            model.
        sd: Those of the frozen model, without its name.
        step: Iterations of training.
        seed: Of the training.
    """

    path: Path
    editor: str | None = None
    backbone: str | None = None
    arguments: dict[str, Any] | None = None
    sd: dict[str, Any] | None = None
    step: int | None = None
    seed: int | None = None

    def facts(self) -> dict[str, str]:
        """All that is known, for people.

        Returns:
            By name, what is None left out.
        """
        facts: dict[str, Any] = dict(
            editor=self.editor,
            backbone=self.backbone,
            step=self.step,
            seed=self.seed,
            **{f'sd.{name}': value for name, value in (self.sd or {}).items()},
        )
        facts |= self.arguments or {}
        return {
            name: value if isinstance(value, str) else to_json(value)
            for name, value in facts.items()
            if value is not None
        }


def to_json(value: Any) -> str:
    """Plain data as JSON, in its own letters.

    Args:
        value: See :func:`mmhiper.utils.arguments.check_plain`.

    Returns:
        One line.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def parse_record(text: str, path: Path) -> Any:
    """Reads the document of an export.

    Args:
        text: JSON.
        path: The file, for messages.

    Returns:
        Not checked yet, see :func:`read_record`.

    Raises:
        FileError: If it is no JSON, or too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise _damaged(path, f'has {len(text):,} characters')
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f'is no JSON: {error}') from None


def read_record(document: Any, path: Path) -> Record:
    """Checks what a file says about its tensors.

    Args:
        document: What lay under :data:`KEY`; or the entries that version 0.1.0
            wrote, all of them texts.
        path: The file, for messages.

    Returns:
        Its structure is right; whether its values fit the editor shows when
        that is built.

    Raises:
        FileError: If it is damaged, or of a later version.
    """
    if not isinstance(document, Mapping):
        raise _damaged(path, f'is a {type(document).__name__}, not a dict')
    if 'version' not in document:
        document = _from_0_1(document, path)
    version = document['version']
    if type(version) is int and version > VERSION:
        raise FileError(
            f'{str(path)!r} was written by a later version of mmhiper (its '
            f'record is of version {version}, this one reads {VERSION}). '
            'Update mmhiper.'
        )
    for name, value in document.items():
        if name not in _FIELDS:
            raise _damaged(path, f'has an unknown field {_shown(name)}')
        if type(value) not in _FIELDS[name]:
            wanted = ' or '.join(kind.__name__ for kind in _FIELDS[name])
            raise _damaged(
                path,
                f'has as `{name}` {_shown(value)}, where {wanted} is wanted',
            )
    try:
        check_plain({**document})
    except ValueError as fault:
        raise _damaged(path, str(fault)) from None
    editor = document.get('editor')
    if editor is not None and not re.fullmatch(_NAME, editor):
        raise _damaged(path, f'names as its editor {_shown(editor)}')
    values = {name: document.get(name) for name in _FIELDS}
    del values['version']
    return Record(path=path, **values)


def _shown(value: Any) -> str:
    """What a file says, on one line, and not all of it."""
    return printable(repr(value)[:80])


def _damaged(path: Path, fault: str) -> FileError:
    """Words what is wrong with a record."""
    return FileError(
        f'The record of {str(path)!r}, which says what its tensors belong '
        f'to, {fault}. Take another checkpoint, or name the config that it '
        'was trained with before it.'
    )


def _json(text: str) -> Any:
    """A list of texts, of which one stands for itself; or None."""
    value = json.loads(text)
    return value[0] if isinstance(value, list) and len(value) == 1 else value


# Version 0.1.0 wrote these, as text, and nothing else.
_FROM_0_1: dict[str, Callable[[str], Any]] = dict(
    source_text=_json,
    target_text=_json,
    n_hiper=int,
    strength=float,
    num_steps=int,
    guidance_scale=float,
    placeholder_token=str,
    initialize_token=lambda text: text or None,
    num_vectors_per_token=int,
)


def _from_0_1(entries: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The document of what 0.1.0 wrote; what it left out stays out."""
    texts = dict(entries)
    document: dict[str, Any] = dict(version=VERSION)
    for name in ('editor', 'backbone'):
        if name in texts:
            document[name] = texts.pop(name)
    arguments = {}
    for name, text in texts.items():
        convert = _FROM_0_1.get(str(name), str)
        try:
            if name in ('step', 'seed'):
                document[name] = None if text == 'None' else int(text)
            else:
                arguments[name] = convert(text)
        except (TypeError, ValueError, OverflowError, RecursionError):
            fault = f'has as {_shown(name)} {_shown(text)}'
            raise _damaged(path, fault) from None
    if arguments or 'step' in document:
        document['arguments'] = arguments
    return document
