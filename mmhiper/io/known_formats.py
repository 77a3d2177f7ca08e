"""Learned words, read from and written to the formats of the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmhiper.io import (
    a1111_format,
    diffusers_format,
    kohya_format,
    mmagic_format,
    mmhiper_format,
    original_format,
    pivotal_format,
)
from mmhiper.io.file_content import FileContent, read_content, write_content
from mmhiper.io.model_kinds import model_kind
from mmhiper.io.modelspec import describe, kept, without_fields
from mmhiper.io.token_file import TokenFile, quoted
from mmhiper.io.token_format import TokenFormat
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import printable

# The order matters: the first that matches reads a file.
_FORMATS: dict[str, TokenFormat] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        mmhiper_format,
        mmagic_format,
        kohya_format,
        pivotal_format,
        a1111_format,
        original_format,
        diffusers_format,
    )
}
_KOHYA = 'https://github.com/kohya-ss/sd-scripts'
TOKEN_FORMATS = [name for name, form in _FORMATS.items() if form.write]


def read_token_file(
    path: str | Path, placeholder: str | None = None
) -> TokenFile:
    """Reads learned words, whatever the format of their file.

    Read are the files of diffusers, the A1111 web UI, kohya's scripts and
    OneTrainer, the original Textual Inversion, pivotal tuning (``.pti``),
    checkpoints of MMagic's, and this package's own exports. The format is
    told by the content, not by the suffix. Nothing but tensors and plain
    values is taken from a file.

    Args:
        placeholder: What to call rows that the file has no name for: a bare
            tensor, or those of pivotal tuning, which are one word then. Names
            that a file has stay.

    Returns:
        The words with their rows, fp32 on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds something else, or needs to run
            code to be loaded.
    """
    content = read_content(path, placeholder)
    form = _format_of(content)
    if form is None:
        raise FileError(
            f'{str(path)!r} is not an embedding of Textual Inversion: '
            f'{_what_it_is(content)}'
        )
    try:
        return form.read(content)
    except UserError as error:
        raise FileError(f'{str(path)!r} cannot be used: {error}') from error


def is_foreign(path: str | Path) -> bool:
    """Whether a file holds words in the format of another program.

    Args:
        path: Any file, or none.

    Returns:
        False for what :func:`read_token_file` does not read, too.
    """
    try:
        form = _format_of(read_content(path))
    except UserError:
        return False
    return form is not None and form is not mmhiper_format.FORMAT


def _format_of(content: FileContent) -> TokenFormat | None:
    """The first format that a file is of."""
    matching = (form for form in _FORMATS.values() if form.matches(content))
    form = next(matching, None)
    # any names may be words, but for those of something else
    if form is diffusers_format.FORMAT and model_kind(content.entries):
        return None
    return form


def write_token_file(
    path: str | Path,
    tokens: TokenFile | Mapping[str, Tensor],
    format: str | None = None,
    given: Mapping[str, str] | None = None,
) -> None:
    """Writes learned words to a file, in one step.

    A file that is there is replaced.

    Args:
        path: The file; its folder must exist.
        tokens: The words; a mapping has (n, D) by placeholder.
        format: One of ``TOKEN_FORMATS``. By default 'diffusers', for its
            suffixes ``.safetensors`` and ``.bin``.
        given: What else to say of them in a safetensors file, see
            :data:`mmhiper.io.modelspec.GIVEN`.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the format is not known, does not go with the suffix
            or cannot hold these words.
    """
    path = Path(path)
    name = format or diffusers_format.FORMAT.name
    form = _FORMATS.get(name)
    if form is None or form.write is None:
        raise UserError(
            f'`format` must be one of {quoted(TOKEN_FORMATS)}, but got '
            f'{name!r}.'
        )
    if path.suffix not in form.suffixes:
        raise UserError(
            f'Files of the format {name!r} end in '
            f'{" or ".join(form.suffixes)}, but got {str(path)!r}. Choose '
            f'another name or one of the formats {quoted(TOKEN_FORMATS)}.'
        )
    if not isinstance(tokens, TokenFile):
        tokens = TokenFile(tokens, name)
    # other readers look for 'pt' to know whose tensors these are
    metadata = dict(without_fields(tokens.metadata), format='pt')
    metadata |= _spec_of(tokens, form.name, given or {})
    write_content(FileContent(path, form.write(tokens), metadata))


def _spec_of(
    tokens: TokenFile, format: str, given: Mapping[str, str]
) -> dict[str, str]:
    """What user interfaces show of words."""
    backbone = tokens.metadata.get('backbone')
    record = dict(
        editor='TextualInversion',
        backbone=backbone,
        arguments=dict(placeholder_token=tokens.placeholders),
        step=tokens.metadata.get('step'),
    )
    facts = (
        {} if backbone == 'mini-sd' else {'architecture': tokens.architecture}
    )
    facts |= kept(tokens.metadata)
    facts |= given
    if format == 'kohya':
        facts['implementation'] = _KOHYA
    return describe(record, facts)


def suffix_of(format: str) -> str:
    """How the files of a format end.

    Args:
        format: One of ``TOKEN_FORMATS``.

    Returns:
        With its dot; of several the first.
    """
    return _FORMATS[format].suffixes[0]


def _what_it_is(content: FileContent) -> str:
    """Says what a file holds that is no embedding."""
    meta = content.entries.get('meta')
    if isinstance(meta, Mapping) and 'embedding' in meta:
        return (
            'it is a checkpoint of this package. Give the .safetensors '
            'export beside it.'
        )
    if not content.entries:
        return 'it is empty.'
    kind = model_kind(content.entries)
    if kind is not None:
        return kind
    names = list(content.entries)
    shown = [_shape(name, content.entries[name]) for name in names[:5]]
    if len(names) > len(shown):
        shown.append(f'and {len(names) - len(shown)} more')
    return f'it holds {", ".join(shown)}.'


def _shape(name: object, value: object) -> str:
    named = printable(name)[:80] if isinstance(name, str) else quoted([name])
    if isinstance(value, Tensor):
        return f'{named} {tuple(value.shape)}'
    return f'{named} ({type(value).__name__})'
