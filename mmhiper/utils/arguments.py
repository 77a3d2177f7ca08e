"""The values that an object was constructed with, as plain data.

They are kept when it is made, written to files, and checked against the
signature of its constructor when a file is read.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import NoneType, UnionType
from typing import Any

MOST_VALUES = 2_000
DEEPEST = 5
_LARGEST = 2**63
_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class ValuesOf:
    """In ``Annotated[dict, ValuesOf(X)]``: the constructor values of X."""

    kind: type


@dataclass(frozen=True)
class OfThisRun:
    """In ``Annotated[X, OfThisRun()]``: of no use in another place.

    Such a value, the path of a file for instance, is neither written nor
    taken from a file.
    """


@dataclass(frozen=True)
class Argument:
    """What a constructor takes under one name.

    Attributes:
        annotation: Its type, ``Any`` where there is none.
        default: Its default.
    """

    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is _REQUIRED


class KeepsArguments:
    """A base class that remembers what its constructor was given.

    A subclass has nothing to do for it, also where it hands ``**options`` on
    to its parent.
    """

    _given: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keeps plain copies, which nobody changes later."""
        self = super().__new__(cls)
        constructor = inspect.signature(cls.__init__)
        try:
            given = dict(constructor.bind(self, *args, **kwargs).arguments)
        except TypeError:  # the constructor will say it, or this is a copy
            given = {}
        for name, parameter in constructor.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        # past nn.Module.__setattr__, which works after its constructor only
        self.__dict__['_given'] = only_plain(
            {
                name: plain(given.get(name, known.default), known.annotation)
                for name, known in arguments_of(cls).items()
            }
        )
        return self

    def given_arguments(self) -> dict[str, Any]:
        """The values of the constructor, defaults too.

        Returns:
            Texts, numbers, booleans, None, lists and dicts of them, by name;
            without those that are none of these.
        """
        return dict(self._given)


def arguments_of(kind: type) -> dict[str, Argument]:
    """What a constructor takes, through all ``**options`` to the parents.

    Args:
        kind: A class.

    Returns:
        By name.
    """
    found: dict[str, Argument] = {}
    for base in kind.__mro__:
        constructor = vars(base).get('__init__')
        if constructor is None:
            continue
        try:
            types = typing.get_type_hints(constructor, include_extras=True)
        except NameError:  # a type that is imported for checkers alone
            types = {}
        parameters = inspect.signature(constructor).parameters.values()
        handed_on = False
        for parameter in list(parameters)[1:]:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                handed_on = True
            elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                annotation = types.get(parameter.name, Any)
                argument = Argument(annotation, parameter.default)
                found.setdefault(parameter.name, argument)
        if not handed_on:
            break
    return {
        name: argument
        for name, argument in found.items()
        if OfThisRun() not in getattr(argument.annotation, '__metadata__', ())
    }


_NOT_PLAIN = object()


def plain(value: Any, annotation: Any = Any) -> Any:
    """A copy of a value for a file.

    Args:
        value: Anything.
        annotation: What the constructor says about it.

    Returns:
        Texts, numbers, booleans, None, lists and dicts of them; a marker for
        everything else, such as a config of something to be built.
    """
    if value is None or isinstance(value, bool):
        return value
    for simple in (int, float, str):
        if isinstance(value, simple):
            copy = simple(value)
            return copy if _fault(copy) is None else _NOT_PLAIN
    copied: Any
    if isinstance(value, Mapping):
        items = dict(value)
        known = _values_of(annotation)
        kind = items.get('type')
        bare = kind.rpartition('.')[2] if isinstance(kind, str) else kind
        if known is not None and bare in (known, known.__name__):
            del items['type']
        copied = {key: plain(inner) for key, inner in items.items()}
        inside = list(copied.values())
    elif isinstance(value, list | tuple):
        copied = inside = [plain(each) for each in value]
    else:
        return _NOT_PLAIN
    if any(each is _NOT_PLAIN for each in inside) or _fault(copied):
        return _NOT_PLAIN
    return copied


def is_number(value: Any) -> bool:
    """Whether a value can be calculated with.

    Args:
        value: Anything.

    Returns:
        True for finite real numbers; a boolean is none.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def only_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values of which :func:`plain` made a copy.

    Args:
        values: By name.

    Returns:
        Likewise.
    """
    return {k: v for k, v in values.items() if v is not _NOT_PLAIN}


def check_plain(value: Any) -> None:
    """Refuses what is not plain data of reasonable size.

    Args:
        value: From a file; it may refer to itself.

    Raises:
        ValueError: With what is wrong with it.
    """
    fault = _fault(value)
    if fault:
        raise ValueError(fault)


def _fault(value: Any) -> str | None:
    """What keeps a value from being plain data, None if nothing does."""
    level, count = [value], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            fault = _fault_of_one(each)
            if fault:
                return fault
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
            count += 1
            if count + len(below) > MOST_VALUES:
                return f'has more than {MOST_VALUES:,} values'
        if not below:
            return None
        level = below
    return f'is nested more than {DEEPEST} levels deep'


def _fault_of_one(value: Any) -> str | None:
    """Likewise, but for what is in a list or dict."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return 'has a key that is no text'
        if 'type' in value:
            return "has a 'type', which only a config may have"
        texts = list(value)
    else:
        texts = [value] if isinstance(value, str) else []
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return f'has a text that is no valid Unicode, {text!r:.40}'
    if isinstance(value, float) and not math.isfinite(value):
        return f'has a number that is not finite, {value}'
    if type(value) is int and not -_LARGEST <= value < _LARGEST:
        return 'has a number of more than 64 bits'
    if not isinstance(value, str | int | float | NoneType | list | dict):
        return f'has a {type(value).__name__}'
    return None


def check_arguments(
    values: Mapping[str, Any], known: Mapping[str, Argument]
) -> None:
    """Checks values by name and type against a constructor.

    Args:
        values: Plain data.
        known: See :func:`arguments_of`.

    Raises:
        ValueError: With the field, what was wanted and what was got.
    """
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f'{name!r:.80} is unknown; wanted some of {", ".join(known)}.'
            )
        annotation = known[name].annotation
        inner = _values_of(annotation)
        if inner is not None and isinstance(value, Mapping):
            try:
                check_arguments(value, arguments_of(inner))
            except ValueError as error:
                raise ValueError(f'`{name}`: {error}') from None
        elif not _fits(value, annotation):
            raise ValueError(
                f'`{name}` must be {_words_for(annotation)}, but got '
                f'{value!r:.80}.'
            )
    missing = [
        name
        for name, argument in known.items()
        if argument.required and name not in values
    ]
    if missing:
        raise ValueError(f'it has no {", ".join(f"`{m}`" for m in missing)}.')


def _values_of(annotation: Any) -> type | None:
    """The class whose constructor values a dict holds, if it says so."""
    for note in getattr(annotation, '__metadata__', ()):
        if isinstance(note, ValuesOf):
            return note.kind
    return None


def _fits(value: Any, wanted: Any) -> bool:
    """Whether plain data is of a type."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return True
    if origin is typing.Annotated:
        return _fits(value, inner[0])
    if origin in (typing.Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is typing.Literal:
        return any(
            value == each and type(value) is type(each) for each in inner
        )
    kind = origin or wanted
    if kind is None:
        return value is None
    if not isinstance(kind, type):
        return False
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str | int | float | NoneType):
        return type(value) is kind
    if isinstance(value, dict):
        items = inner[1] if len(inner) == 2 else Any
        fits = issubclass(kind, Mapping)
        return fits and all(_fits(each, items) for each in value.values())
    items = [each for each in inner if each is not ...] or [Any]
    fits = issubclass(kind, Sequence) and kind is not str
    return fits and all(any(_fits(v, item) for item in items) for v in value)


def _words_for(annotation: Any) -> str:
    """A type as it stands in the source."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace('typing.', '').replace('NoneType', 'None')
