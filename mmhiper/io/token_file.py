"""What a Textual Inversion file holds, whatever its format."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor

from mmhiper.io.modelspec import kept, shown, with_fields
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import same_word

# widths of the text encoders that a file has rows for -> who has them
_FAMILIES: dict[tuple[int | None, ...], str] = {
    (768,): 'Stable Diffusion 1.x',
    (1024,): 'Stable Diffusion 2.x',
    (768, 1280): 'Stable Diffusion XL',
    (768, 1280, 4096): 'Stable Diffusion 3 and 3.5',
    (None, 1280): 'the second text encoder of Stable Diffusion XL',
    (1280,): 'latent diffusion (text to image), or the second text '
    'encoder of Stable Diffusion XL',
    (2048,): 'text encoders of Stable Diffusion XL, both in one row',
    (4096,): 'T5, a text encoder of Stable Diffusion 3, Flux and others',
}
# The same in the words of ModelSpec; of both sizes of 2.x the text encoder is
# the same, and so are its words.
_ARCHITECTURES: dict[tuple[int | None, ...], str] = {
    (768,): 'stable-diffusion-v1',
    (1024,): 'stable-diffusion-v2-768-v',
    (768, 1280): 'stable-diffusion-xl-v1-base',
    (None, 1280): 'stable-diffusion-xl-v1-base',
    (768, 1280, 4096): 'stable-diffusion-3',
    (1280,): 'latent-diffusion',
}
_MOST_NAMES = 8  # in a message
# A file may have a name of megabytes, or one nested without end.
_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = 80


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Words that were learned, as rows of a text encoder's vocabulary.

    Args:
        embeddings: Placeholder -> rows (n, D) for the first text encoder. A
            single row may come as (D,), all of them as (1, n, D). Copied to
            fp32 on the CPU.
        format: Name of the file format.
        second: The same for a second text encoder (SDXL's ``clip_g``), where
            the file has one.
        metadata: What else the file says.
        third: As ``second``, for a third text encoder (``t5xxl`` of Stable
            Diffusion 3).

    Raises:
        ValueError: If there is no row at all, or one that cannot be used.
    """

    embeddings: Mapping[str, Tensor]
    format: str
    second: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    third: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ('embeddings', 'second', 'third'):
            rows = {
                placeholder: _as_rows(placeholder, tensor)
                for placeholder, tensor in getattr(self, name).items()
            }
            widths = {tensor.shape[1] for tensor in rows.values()}
            if len(widths) > 1:
                raise UserError(
                    'All rows of a file must have one width, that of the '
                    f'text encoder, but got {_name_widths(rows)}.'
                )
            object.__setattr__(self, name, rows)
        if not self.placeholders:
            raise UserError(
                'Wanted at least one placeholder with its rows, but got none.'
            )
        for placeholder in self.placeholders:
            counts = [
                len(rows[placeholder])
                for rows in self.tables
                if placeholder in rows
            ]
            if len(set(counts)) > 1:
                raise UserError(
                    f'{placeholder!r} must have as many rows for each text '
                    'encoder as for the first, but got '
                    f'{" and ".join(map(str, counts))}.'
                )

    @property
    def tables(self) -> tuple[Mapping[str, Tensor], ...]:
        """The rows by placeholder, for each text encoder."""
        return self.embeddings, self.second, self.third

    @property
    def placeholders(self) -> list[str]:
        """The words, in the order of the file."""
        return list(dict.fromkeys(chain(*self.tables)))

    @property
    def widths(self) -> tuple[int | None, ...]:
        """The D of each text encoder up to the last that has rows."""
        widths = [
            next((tensor.shape[1] for tensor in rows.values()), None)
            for rows in self.tables
        ]
        while widths[-1] is None:
            widths.pop()
        return tuple(widths)

    @property
    def width(self) -> str:
        """The widths there are, for people."""
        return ' + '.join(str(width) for width in self.widths if width)

    @property
    def family(self) -> str:
        """Which models have text encoders of this width."""
        return _FAMILIES.get(
            self.widths, 'no Stable Diffusion release has this width'
        )

    @property
    def architecture(self) -> str:
        """The same, as ModelSpec calls them."""
        plain = f'stable-diffusion-{self.widths[0]}'
        return _ARCHITECTURES.get(self.widths, plain)

    def rows_of(self, placeholder: str) -> Tensor:
        """The rows of a word, for all text encoders side by side.

        Args:
            placeholder: A word of the file.

        Returns:
            (n, D), with several text encoders (n, D_1 + D_2 + ...).
        """
        return torch.cat(
            [rows[placeholder] for rows in self.tables if placeholder in rows],
            1,
        )

    def only(self, placeholder: str) -> TokenFile:
        """Takes one word out of several.

        Returns:
            With this word alone.

        Raises:
            ValueError: If it is not in the file.
        """
        if placeholder not in self.placeholders:
            raise UserError(
                f'There is no placeholder {placeholder!r} in the file; it '
                f'has {quoted(self.placeholders)}.'
            )
        return self._taken({placeholder: placeholder})

    def renamed(self, names: Mapping[str, str]) -> TokenFile:
        """Gives words other placeholders, all at the same time.

        Args:
            names: Old -> new; words that it does not name keep theirs.

        Returns:
            The same rows, renamed.

        Raises:
            ValueError: If two words would get one placeholder.
        """
        names = {old: names.get(old, old) for old in self.placeholders}
        if len(set(map(same_word, names.values()))) < len(names):
            raise UserError(
                'Each word needs a placeholder of its own, but got '
                f'{quoted(names.values())}.'
            )
        return self._taken(names)

    def _taken(self, names: Mapping[str, str]) -> TokenFile:
        """The words in ``names`` (old -> new), renamed."""
        first, second, third = (_take(rows, names) for rows in self.tables)
        same = {old: old for old in self.placeholders} == names
        fields = kept(self.metadata, of_words=same)
        return replace(
            self,
            embeddings=first,
            second=second,
            third=third,
            metadata=with_fields(self.metadata, fields),
        )

    def describe(self) -> str:
        """What the file holds, for people.

        Returns:
            Several lines: format, model family, one line per word and text
            encoder with the norm of each row, metadata.
        """
        lines = [
            f'format    {self.format}',
            f'width     {self.width} ({self.family})',
        ]
        for placeholder in self.placeholders:
            lines.append(f'word      {placeholder}')
            for rows in self.tables:
                if placeholder in rows:
                    tensor = rows[placeholder]
                    norms = ' '.join(
                        f'{norm:.3g}' for norm in tensor.norm(dim=1)
                    )
                    lines.append(
                        f'          {len(tensor)} vector(s), '
                        f'{tensor.shape[1]} wide, norm {norms}'
                    )
        for key, value in self.metadata.items():
            lines.append(f'metadata  {shown(key)}: {shown(value)}')
        return '\n'.join(lines)


def quoted(names: Iterable[object]) -> str:
    """Names for an error message.

    Args:
        names: The names, as a file has them.

    Returns:
        Each in quotes, with commas; the first ones of many.
    """
    names = list(names)
    shown = [_QUOTES.repr(name) for name in names[:_MOST_NAMES]]
    if len(names) > len(shown):
        shown.append(f'and {len(names) - len(shown)} more')
    return ', '.join(shown)


def _take(
    rows: Mapping[str, Tensor], names: Mapping[str, str]
) -> dict[str, Tensor]:
    """The rows of the words in ``names`` (old -> new), renamed."""
    return {new: rows[old] for old, new in names.items() if old in rows}


def _name_widths(rows: Mapping[str, Tensor]) -> str:
    return ', '.join(
        f'{placeholder!r}: {tensor.shape[1]}'
        for placeholder, tensor in list(rows.items())[:_MOST_NAMES]
    )


def _as_rows(placeholder: str, tensor: Tensor) -> Tensor:
    """Checks what a placeholder has, and copies it as (n, D) fp32."""
    if (
        not isinstance(placeholder, str)
        or not placeholder.strip()
        or not placeholder.isprintable()  # also halves of characters
    ):
        raise UserError(
            'A placeholder must be a word to write in a prompt, but got '
            f'{quoted([placeholder])}.'
        )
    wanted = f'The rows of {quoted([placeholder])} must be'
    if (
        not isinstance(tensor, Tensor)
        or not tensor.is_floating_point()
        or tensor.layout is not torch.strided
        or tensor.is_meta
    ):
        got = getattr(tensor, 'dtype', type(tensor).__name__)
        raise UserError(f'{wanted} a plain tensor of floats, but got {got}.')
    batched = tensor.ndim == 3 and len(tensor) == 1
    if not (tensor.ndim in (1, 2) or batched) or not tensor.numel():
        raise UserError(
            f'{wanted} (n, D) with n at least 1, or a single row (D,), but '
            f'got the shape {tuple(tensor.shape)}.'
        )
    # a copy: the original may be a view into a large file
    rows = tensor.detach().to('cpu', torch.float32, copy=True)
    if not rows.isfinite().all():
        raise UserError(
            f'{wanted} finite, but some values are not: the training that '
            'made them has diverged. Use an earlier checkpoint of it.'
        )
    return rows.reshape(-1, rows.shape[-1]).contiguous()
