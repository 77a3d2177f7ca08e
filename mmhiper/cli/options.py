"""Options of several commands: guidance, and values of a config."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from mmhiper.io.modelspec import GIVEN, check_given
from mmhiper.models.guidance import NONE, Guidance
from mmhiper.utils.errors import UserError

_INTEGER = re.compile(r'[-+]?(0|[1-9][0-9]{0,99})')
_FLOAT = re.compile(
    r'[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?'
)
_CONSTANTS = {
    **dict.fromkeys(('True', 'true', 'TRUE'), True),
    **dict.fromkeys(('False', 'false', 'FALSE'), False),
    'None': None,
}
_NO_NUMBER = object()
_BRACKETS = {'[': ']', '(': ')', '{': '}'}
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'[^']*'|"[^"]*")|(?P<sign>[][(){},:])|"""
    r"""(?P<bare>[^][(){},:'"\s]+))"""
)


def one_or_all(values: list[Any] | None) -> Any:
    """What an option with one or more values stands for.

    Args:
        values: As argparse has them.

    Returns:
        The value, where it is one.
    """
    return values[0] if values and len(values) == 1 else values


def add_guidance(parser: Any) -> None:
    """Describes what pictures are guided by.

    Args:
        parser: Or a group of options.
    """
    parser.add_argument(
        '--guidance-scale',
        type=float,
        metavar='S',
        help='how closely pictures follow their texts; 1 is no guidance (the '
        "backbone's own: 7.5 for Stable Diffusion, 5 for XL)",
    )
    parser.add_argument(
        '--guidance-rescale',
        type=float,
        metavar='SHARE',
        help='in [0, 1]; undoes the contrast that much guidance adds, 0.7 '
        'where it is used (0)',
    )
    parser.add_argument(
        '--guidance-interval',
        type=float,
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='noise levels between which guidance acts, such as 0.28 5.42 '
        '(all; they go from 0.03 to 14.6)',
    )


def add_scheduler(parser: Any) -> None:
    """Describes what pictures are sampled with.

    Args:
        parser: Or a group of options.
    """
    parser.add_argument(
        '--scheduler',
        nargs='+',
        metavar=('NAME', 'KEY=VALUE'),
        help='a scheduler of diffusers to sample with, and values of its '
        'config, such as DPMSolverMultistepScheduler use_karras_sigmas=True '
        "(the backbone's own, DDIM)",
    )


def scheduler_given(args: argparse.Namespace) -> dict[str, Any]:
    """The option of :func:`add_scheduler`, if it was given.

    Returns:
        An option of an editor's ``infer``.

    Raises:
        ValueError: If there is no such scheduler, or it has no such value.
    """
    if args.scheduler is None:
        return {}
    from mmhiper.models.schedulers import split_type

    name, *pairs = args.scheduler
    values = {}
    for pair in pairs:
        key, sign, text = pair.partition('=')
        if not sign:
            raise UserError(
                '--scheduler must be a NAME and then KEY=VALUE, but got '
                f'{pair!r} behind {name!r}.'
            )
        values[key] = read_value(text)
    split_type(dict(values, type=name))
    return dict(scheduler=dict(values, type=name) if values else name)


def guidance_given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_guidance` that were given.

    Returns:
        Options of an editor's ``infer``.

    Raises:
        ValueError: If one is out of its range, before anything is trained or
            drawn.
    """
    scale, interval = args.guidance_scale, args.guidance_interval
    share = args.guidance_rescale
    Guidance(NONE if scale is None else scale, share or 0.0, interval)
    given = dict(
        guidance_scale=scale,
        guidance_rescale=share,
        guidance_interval=interval,
    )
    return {name: each for name, each in given.items() if each is not None}


def add_modelspec(parser: Any) -> None:
    """Describes what a user may say of a file.

    Args:
        parser: Or a group of options.
    """
    parser.add_argument(
        '--modelspec',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=TEXT',
        help='what user interfaces show of a .safetensors file, such as '
        f'license=cc-by-4.0 author="A. Painter"; {", ".join(GIVEN)}',
    )


def modelspec_given(args: argparse.Namespace) -> dict[str, str]:
    """The option of :func:`add_modelspec`.

    Returns:
        Texts by name.

    Raises:
        ValueError: If a name is unknown, or a text none.
    """
    pairs = [each.partition('=') for each in args.modelspec]
    return check_given({name.strip(): text for name, _, text in pairs})


class ConfigOptions(argparse.Action):
    """``KEY=VALUE ...``, where a text stays what it is.

    MMEngine's own reading makes a list of a text with commas, removes blanks
    and quotes, and takes ``2024_01`` for a number. Here a value is

    - a number as Python writes it in decimals, ``True``, ``False``, ``None``;
    - a list, a tuple or a dict in brackets, of these and of texts in quotes;
    - what is between quotes, if all of it is;
    - else a text, as it stands. Backslashes are letters everywhere.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Adds values to the namespace.

        Args:
            parser: Ends with what is wrong.
            namespace: Changed in place.
            values: ``KEY=VALUE`` each.
            option_string: Such as ``--cfg-options``.
        """
        options = dict(getattr(namespace, self.dest, None) or {})
        texts = dict(getattr(namespace, f'{self.dest}_texts', None) or {})
        for each in values:
            key, sign, text = each.partition('=')
            if not sign or not key.strip():
                parser.error(
                    f'{option_string}: wanted KEY=VALUE, got {each}. A value '
                    'with blanks needs quotes around it for the shell: '
                    "KEY='a standing dog'."
                )
            texts[key.strip()] = text.strip()
            try:
                options[key.strip()] = read_value(text)
            except argparse.ArgumentTypeError as error:
                parser.error(f'{option_string}: {key.strip()}: {error}')
        setattr(namespace, self.dest, options)
        # as they were written, see `merge_options`
        setattr(namespace, f'{self.dest}_texts', texts)


def read_value(text: str) -> Any:
    """Reads a value, see :class:`ConfigOptions`.

    Args:
        text: Of the command line.

    Returns:
        A plain value.

    Raises:
        argparse.ArgumentTypeError: If it is all in square brackets, but is
            no list; or in others, with quotes in them, and cannot be read.
    """
    bare = text.strip()
    value = _constant(bare)
    if value is not _NO_NUMBER:
        return value
    if _is_quoted(bare):
        return bare[1:-1]
    if bare == '{}' or not _is_bracketed(bare):  # the shortest template
        return text
    try:
        return _Values(bare).read()
    except _NoValue as error:
        # (best quality), {cat|dog}: sentences have round and curly brackets
        if not bare.startswith('[') and not re.search('[\'"]', bare):
            return text
        raise argparse.ArgumentTypeError(
            f'{bare} is no list: {error}. Texts in brackets need quotes: '
            "['a dog', 'a cat']; a text that is all in brackets needs them "
            'around it.'
        ) from None


def show_options(options: Mapping[str, Any] | None) -> None:
    """Prints what was understood, for ``--debug``.

    Args:
        options: Of :class:`ConfigOptions`.
    """
    for key, value in (options or {}).items():
        print(f'{key} = {value!r} ({type(value).__name__})')


class _NoValue(Exception):
    """Why a text in brackets is no list, tuple or dict."""


class _Values:
    """Reads nested lists, tuples and dicts from a text."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise _NoValue('a quote is not closed')
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
            place = found.end()

    def read(self) -> Any:
        """The one value of the text."""
        value = self._value()
        if self._tokens:
            raise _NoValue(f'{self._tokens[0][1]} is too much')
        return value

    def _value(self) -> Any:
        kind, word = self._next()
        if kind == 'text':
            return word[1:-1]
        if word == '[':
            return self._items(']')[0]
        if word == '(':
            values, commas = self._items(')')
            if len(values) == 1 and not commas:
                raise _NoValue('one value in round brackets needs a comma')
            return tuple(values)
        if word == '{':
            return self._pairs()
        value = _constant(word)
        if kind != 'bare' or value is _NO_NUMBER:
            raise _NoValue(f'{word} is in no quotes')
        return value

    def _items(self, end: str) -> tuple[list[Any], int]:
        """The values up to a bracket, and how many commas are between."""
        values: list[Any] = []
        commas = 0
        while not self._at(end):
            values.append(self._value())
            if not self._at(end, keep=True):
                self._expect(',')
                commas += 1
        return values, commas

    def _pairs(self) -> dict[Any, Any]:
        """Keys and values up to the bracket."""
        pairs: dict[Any, Any] = {}
        while not self._at('}'):
            kind, key = self._next()
            if kind != 'text':
                raise _NoValue(f'the key {key} is in no quotes')
            self._expect(':')
            pairs[key[1:-1]] = self._value()
            if not self._at('}', keep=True):
                self._expect(',')
        return pairs

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise _NoValue('it ends too early')
        return self._tokens.pop(0)

    def _at(self, sign: str, keep: bool = False) -> bool:
        """Whether a sign is next; it is then taken, unless kept."""
        found = self._tokens[:1] == [('sign', sign)]
        if found and not keep:
            self._tokens.pop(0)
        return found

    def _expect(self, sign: str) -> None:
        kind, word = self._next()
        if (kind, word) != ('sign', sign):
            raise _NoValue(f'{word} is where {sign} should be')


def _constant(text: str) -> Any:
    """A number, True, False or None; or that it is none of them."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and isfinite(float(text)):
        return float(text)
    return _NO_NUMBER


def _is_quoted(text: str) -> bool:
    """Whether all of a text is between two quotes, with none in it."""
    return (
        len(text) > 1
        and text[0] in '\'"'
        and text[0] == text[-1]
        and text[0] not in text[1:-1]
    )


def _is_bracketed(text: str) -> bool:
    """Whether the bracket that a text begins with is closed at its end."""
    if text[:1] not in _BRACKETS:
        return False
    depth = 0
    # brackets in quotes are letters, but an apostrophe quotes nothing
    signs = re.sub(r"""'[^']*'|"[^"]*\"""", _blanks, text)
    for place, sign in enumerate(signs):
        if sign in _BRACKETS:
            depth += 1
        elif sign in _BRACKETS.values():
            depth -= 1
            if depth == 0:
                return place == len(signs) - 1
    return False


def _blanks(found: re.Match[str]) -> str:
    return ' ' * len(found[0])
