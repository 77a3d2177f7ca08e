"""``modelspec.*``: what user interfaces show of a safetensors file.

The ModelSpec standard of Stability AI, version 1.0.1: texts in the metadata
of a file that say what its tensors are for. Everything that this package
writes has them. Nothing is decided by them; they are read to be shown, and to
go along when a file is converted.

The architecture is that of the frozen model, a slash, and what was learned:
``stable-diffusion-v1/textual-inversion`` as others write it, and in the same
form ``stable-diffusion-v1/hiper``, ``.../style-diffusion`` and so on by the
editor. Of a model that the standard does not list it is its family with the
width of its text encoder, ``stable-diffusion-32``; or ``mini-sd``.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mmhiper.io.file_content import pack, read_safetensors
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.errors import UserError
from mmhiper.utils.reading import printable
from mmhiper.utils.units import plain_size

PREFIX = 'modelspec.'
VERSION = '1.0.1'
# What a user may say, in a config (`modelspec`) or on the command line.
GIVEN = ('title', 'author', 'description', 'license', 'usage_hint', 'tags')
# What is no longer true when other words are in the file.
_OF_WORDS = (
    'title',
    'description',
    'usage_hint',
    'trigger_phrase',
    'thumbnail',
)
_OF_MODEL = ('architecture', 'resolution', 'prediction_type')
_KEPT = (*_OF_WORDS, *_OF_MODEL, 'author', 'license', 'tags', 'date')
_MOST_GIVEN = 2000  # characters of a field
_MOST_KEPT = 100_000  # of one that goes along with a stranger's file
_MOST_SHOWN = 400
# No more than what it comes with: N = 5 positions of HiPer for Stable
# Diffusion 1.x are 15,360 bytes.
MOST_THUMBNAIL = 15_000
_SIDES = (256, 192, 128, 96, 64)  # 256 is what the standard recommends
_KINDS = {'HiPer': 'hiper', 'ProSpect': 'prospect'}


def check_given(given: Mapping[str, Any] | None) -> dict[str, str]:
    """Refuses what a user cannot say of a file.

    Args:
        given: Texts by names of :data:`GIVEN`; None leaves one out.

    Returns:
        Those that are said.

    Raises:
        ValueError: If a name is unknown, or a value no line of text.
    """
    given = {k: v for k, v in (given or {}).items() if v is not None}
    for name, value in given.items():
        if name not in GIVEN:
            raise UserError(
                f'`modelspec` takes {", ".join(GIVEN)}, but got {name!r}.'
            )
        if (
            not isinstance(value, str)
            or not value.strip()
            or not value.isprintable()
            or len(value) > _MOST_GIVEN
        ):
            raise UserError(
                f'`modelspec.{name}` must be a line of text of at most '
                f'{_MOST_GIVEN} characters, but got {value!r:.80}.'
            )
    return given


def describe(
    record: Mapping[str, Any], facts: Mapping[str, str]
) -> dict[str, str]:
    """All fields of a file.

    Args:
        record: What its tensors belong to, see :mod:`mmhiper.io.record`.
        facts: What the record does not say, by the names of the standard:
            ``Editor.model_facts()``, a date, what a user has given.

    Returns:
        By their full names, but for the hash, which :func:`pack` adds.
    """
    editor = str(record.get('editor') or 'embedding')
    arguments = record.get('arguments') or {}
    words = words_of(arguments)
    source = arguments.get('source_text')
    source = source[0] if isinstance(source, list) and source else source
    model = public_name(str(record.get('backbone') or ''))
    subject = ', '.join(words) or (f'"{source}"' if source else '')
    kind = kind_of(editor)
    fields = dict(
        sai_model_spec=VERSION,
        architecture='mini-sd' if model == 'mini-sd' else 'stable-diffusion',
        implementation='diffusers' if kind == 'textual-inversion' else '',
        title=', '.join(words) or f'{editor} {source or ""}'.strip(),
        description=f'What {editor} learned'
        + (f' of {subject}' if subject else '')
        + (f' on {model}' if model else '')
        + (f', in {record["step"]} iterations' if record.get('step') else '')
        + '.',
        trigger_phrase=', '.join(words),
        usage_hint=f'Write {" or ".join(words)} in a prompt.'
        if words
        else 'Draw with mmhiper: load_editor(FILE).infer(TEXT).',
        tags=f'mmhiper, {kind}',
    )
    fields['implementation'] = fields['implementation'] or 'mmhiper'
    fields |= facts
    if '/' not in fields['architecture']:
        fields['architecture'] += f'/{kind}'
    return {
        f'{PREFIX}{name}': value[:_MOST_KEPT]
        for name, value in fields.items()
        if value
    }


def words_of(arguments: Mapping[str, Any]) -> list[str]:
    """The words of an editor of words; of the others none."""
    words = arguments.get('placeholder_token') or []
    words = [words] if isinstance(words, str) else words
    return [word for word in words if isinstance(word, str)]


def kind_of(editor: str) -> str:
    """The name of an editor, as the standard writes such names."""
    parts = re.sub('(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '-', editor)
    return _KINDS.get(editor, parts.lower())


def public_name(model: str) -> str:
    """The name of a model, without the folders of a machine.

    Args:
        model: A hub id, a bundled one, a folder or a file.
    """
    if is_hub_id(model):
        return model
    return re.split(r'[\\/]', model.rstrip('\\/'))[-1]


def is_hub_id(name: str) -> bool:
    """Whether a name is that of a repository, OWNER/NAME."""
    part = r'[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?'
    known = re.fullmatch(rf'{part}/{part}', name, re.ASCII)
    return known is not None and not re.search(r'--|\.\.', name)


def fields_in(metadata: Mapping[str, str]) -> dict[str, str]:
    """The fields of a file, by their names without prefix."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in metadata.items()
        if name.startswith(PREFIX)
    }


def kept(metadata: Mapping[str, str], of_words: bool = True) -> dict[str, str]:
    """What goes along from a file to one that is made of it.

    Args:
        metadata: Of any file.
        of_words: Also what is of the very words in it.

    Returns:
        Without what is too long, or not in the standard, by names without
        prefix.
    """
    return {
        name: value
        for name, value in fields_in(metadata).items()
        if name in _KEPT
        and len(value) <= _MOST_KEPT
        and (of_words or name not in _OF_WORDS)
    }


def without_fields(metadata: Mapping[str, str]) -> dict[str, str]:
    """The rest of the metadata of a file."""
    return {k: v for k, v in metadata.items() if not k.startswith(PREFIX)}


def with_fields(
    metadata: Mapping[str, str], fields: Mapping[str, str]
) -> dict[str, str]:
    """Metadata with other fields in place of its own."""
    named = {f'{PREFIX}{name}': value for name, value in fields.items()}
    return without_fields(metadata) | named


def shown(value: str) -> str:
    """A text of a stranger's file for people, of a long one the beginning."""
    if len(value) <= _MOST_SHOWN:
        return printable(value)
    return f'{printable(value[:40])} ... ({plain_size(len(value))})'


def choose_panel(panels: Iterable[tuple[str, Image.Image]]) -> Image.Image:
    """Of what a preview shows, the picture that stands for it.

    Args:
        panels: Without source pictures: the reconstruction first, where
            there is one.
    """
    return list(panels)[:2][-1][1]


def thumbnail(picture: Image.Image) -> str | None:
    """A picture as a data URI.

    Returns:
        Of a JPEG of at most 256 pixels; None if even a small one takes more
        than :data:`MOST_THUMBNAIL`.
    """
    for side in _SIDES:
        small = picture.convert('RGB')
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, 'JPEG', quality=75, optimize=True)
        text = base64.b64encode(buffer.getvalue()).decode()
        uri = f'data:image/jpeg;base64,{text}'
        if len(uri) <= MOST_THUMBNAIL:
            return uri
    return None


def add_thumbnail(path: str | Path, picture: Image.Image) -> None:
    """Gives a file a picture of what it is for, if that is small.

    Args:
        path: A safetensors file of this package.
        picture: Any.
    """
    small = thumbnail(picture)
    if small is not None:
        tensors, metadata = read_safetensors(Path(path))
        metadata[f'{PREFIX}thumbnail'] = small
        with atomic_path(path) as temporary:
            temporary.write_bytes(pack(tensors, metadata))
