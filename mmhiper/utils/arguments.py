"""The values that an object is constructed with, checked and kept.

They are checked against the annotations of its constructor, where a file is
read as where a config or a program calls it. Those of an editor are kept as
plain data, which is written to files.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from mmhiper.utils.errors import UserError

MOST_VALUES = 20_000
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


class ChecksArguments:
    """A base class whose constructor takes what its annotations say."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Checks types before the constructor sees the values."""
        given = _given_to(cls, args, kwargs)
        check_types(given, arguments_of(cls, of_this_run=True), cls.__name__)
        return super().__new__(cls)


class KeepsArguments(ChecksArguments):
    """One that also remembers what its constructor was given.

    A subclass has nothing to do for it, also where it hands ``**options`` on
    to its parent.
    """

    _given: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keeps plain copies, which nobody changes later."""
        self = super().__new__(cls, *args, **kwargs)
        given = _given_to(cls, args, kwargs)
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


def _given_to(
    kind: type, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a constructor by name, none where it takes no such."""
    try:
        return bound_arguments(kind.__init__, (None, *args), kwargs)  # type: ignore[misc]
    except TypeError:  # the constructor will say it, or this is a copy
        return {}


def bound_arguments(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The values of a call by the names of the parameters.

    Args:
        function: A method.
        args: Of the call, the object first.
        kwargs: Likewise.

    Returns:
        Without the object and defaults, with ``**options``.

    Raises:
        TypeError: If the function does not take them.
    """
    signature = inspect.signature(function)
    given = dict(signature.bind(*args, **kwargs).arguments)
    for number, (name, parameter) in enumerate(signature.parameters.items()):
        if number == 0 or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            given.pop(name, None)
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def arguments_of(kind: type, of_this_run: bool = False) -> dict[str, Argument]:
    """What a constructor takes, through all ``**options`` to the parents.

    Args:
        kind: A class.
        of_this_run: Whether with those that no file has, see
            :class:`OfThisRun`.

    Returns:
        By name.
    """
    found: dict[str, Argument] = {}
    for base in kind.__mro__:
        constructor = vars(base).get('__init__')
        if constructor is None:
            continue
        found |= {
            name: argument
            for name, argument in parameters_of(constructor).items()
            if name not in found
        }
        parameters = inspect.signature(constructor).parameters.values()
        if all(each.kind is not each.VAR_KEYWORD for each in parameters):
            break
    return {
        name: argument
        for name, argument in found.items()
        if of_this_run
        or OfThisRun() not in getattr(argument.annotation, '__metadata__', ())
    }


def parameters_of(function: Callable[..., Any]) -> dict[str, Argument]:
    """What a method takes by name.

    Args:
        function: The method.

    Returns:
        Without the object, ``*args`` and ``**options``.
    """
    try:
        types = typing.get_type_hints(function, include_extras=True)
    except NameError:  # a type that is imported for checkers alone
        types = {}
    several = (
        inspect.Parameter.VAR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    parameters = list(inspect.signature(function).parameters.values())
    return {
        each.name: Argument(types.get(each.name, Any), each.default)
        for each in parameters[1:]
        if each.kind not in several
    }


def checked(
    function: Callable[..., Any],
    further: Callable[[Any], Mapping[str, Argument] | None] | None = None,
) -> Callable[..., Any]:
    """Has a method take what its annotations say.

    Args:
        function: The method.
        further: Gets the object and says what its ``**options`` may be; None
            leaves them to the method.

    Returns:
        The same, which raises a ValueError for a value of another type, and
        for an option that there is not.
    """

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = parameters_of(function)
        more = None if further is None else further(self)
        if more is not None:
            known = known | {k: v for k, v in more.items() if k not in known}
            for name in kwargs:
                if name not in known:
                    raise UnknownOptionError(type(self).__name__, name, known)
        try:
            given = bound_arguments(function, (self, *args), kwargs)
        except TypeError:  # it will say it itself
            given = {}
        check_types(given, known)
        return function(self, *args, **kwargs)

    return call


class UnknownOptionError(UserError, TypeError):
    """A keyword that a call does not know, with the nearest one it knows."""

    def __init__(
        self, whose: str, name: str = '', known: Iterable[str] = ()
    ) -> None:
        if name:
            near = difflib.get_close_matches(name, known, 1)
            meant = f' Did you mean `{near[0]}`?' if near else ''
            whose = (
                f'{whose} got an unexpected keyword argument {name!r:.80}.'
                f'{meant} It has: {", ".join(known)}.'
            )
        super().__init__(whose)  # the message, where it is made again


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
        elif not fits(value, annotation):
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


def check_types(
    values: Mapping[str, Any],
    known: Mapping[str, Argument],
    whose: str = '',
) -> None:
    """Checks the values of a call by their types alone.

    Args:
        values: Anything, by name; what is not known is left to who is called.
        known: See :func:`arguments_of`.
        whose: Who is called, for the message.

    Raises:
        ValueError: With the name, what was wanted and what was got.
    """
    for name, value in values.items():
        if name not in known:
            continue
        annotation = known[name].annotation
        inner = _values_of(annotation)
        if inner is not None and isinstance(value, Mapping):
            check_types(
                value, arguments_of(inner, of_this_run=True), f'`{name}`'
            )
        elif value is not known[name].default:
            _check_type(name, value, annotation, whose)


def _check_type(
    name: str, value: Any, annotation: Any, whose: str = ''
) -> None:
    """Refuses a value of another type, with what to write in its place."""
    if not fits(value, annotation):
        raise UserError(
            f'{whose and f"{whose}: "}`{name}` must be '
            f'{_plain_words(annotation)}, but got {value!r:.80}.'
            f'{_cure(value, annotation)}'
        )


_PLAIN_WORDS = {
    str: 'a text',
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    NoneType: 'None',
    None: 'None',
    dict: 'a dict',
}


def _plain_words(annotation: Any) -> str:
    """A type in words."""
    origin = typing.get_origin(annotation)
    inner = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain_words(inner[0])
    if origin in (typing.Union, UnionType):
        return ' or '.join(dict.fromkeys(map(_plain_words, inner)))
    if origin is typing.Literal:
        return f'one of {", ".join(map(repr, inner))}'
    kind = origin or annotation
    if kind in _PLAIN_WORDS:
        return _PLAIN_WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return 'a dict'
    if isinstance(kind, type) and issubclass(kind, Sequence):
        each = f' of ({_plain_words(inner[0])})' if inner else ''
        if inner and inner[0] in _PLAIN_WORDS:  # 'a text' -> 'texts'
            each = f' of {_PLAIN_WORDS[inner[0]].removeprefix("a ")}s'
        pair = kind is tuple and len(inner) == 2 and inner[0] == inner[1]
        return f'a {"pair" if pair else "list"}{each}'
    return getattr(kind, '__name__', str(kind))


def _cure(value: Any, annotation: Any) -> str:
    """What to write in place of a value, where that can be told."""
    if isinstance(value, str):
        for number in (int, float):
            try:
                if fits(number(value), annotation):
                    return f' Write it without quotes: {number(value)!r}.'
            except ValueError:
                continue
        return ''
    if isinstance(value, Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            return ' It must be finite.'
        if not isinstance(value, Integral) and float(value).is_integer():
            whole = int(float(value))
            return f' Write {whole}.' if fits(whole, annotation) else ''
        if isinstance(value, Integral) and not _is_whole(value):
            return ' It must be between -2**63 and 2**63 - 1.'
    if isinstance(value, Real) and fits('', annotation):
        return f" Write it in quotes: '{value}'."
    return ''


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number of at most 64 bits."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and -_LARGEST <= value < _LARGEST


def _values_of(annotation: Any) -> type | None:
    """The class whose constructor values a dict holds, if it says so."""
    for note in getattr(annotation, '__metadata__', ()):
        if isinstance(note, ValuesOf):
            return note.kind
    return None


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of a type.

    Lists and tuples are alike, whole numbers are numbers, and truth values
    are not.

    Args:
        value: Anything.
        wanted: An annotation.

    Returns:
        The answer; True where it cannot be told.
    """
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any or wanted is inspect.Parameter.empty:
        return True
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin in (typing.Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is typing.Literal:
        return any(
            value == each and type(value) is type(each) for each in inner
        )
    kind = origin or wanted
    if kind is None:
        return value is None
    if not isinstance(kind, type) or getattr(kind, '_is_protocol', False):
        return True
    if kind is float:
        return is_number(value)
    if kind is int:
        return _is_whole(value)
    if kind is str:
        return isinstance(value, str)
    if isinstance(value, str):  # a sequence to Python
        return isinstance(value, kind) and not issubclass(kind, Sequence)
    if isinstance(value, Mapping):
        items = inner[1] if len(inner) == 2 else Any
        return issubclass(kind, Mapping) and all(
            fits(each, items) for each in value.values()
        )
    if issubclass(kind, Sequence):
        return _is_sequence_of(value, kind, inner)
    if kind is os.PathLike or issubclass(kind, Path):
        return isinstance(value, os.PathLike)
    return isinstance(value, kind)


def _is_sequence_of(value: Any, kind: type, inner: Sequence[Any]) -> bool:
    """Whether a value is a list or tuple of such; which does not matter."""
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return False
    if kind is tuple and inner and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(fits, value, inner))
    items = inner[0] if inner else Any
    return all(fits(each, items) for each in value)


def _words_for(annotation: Any) -> str:
    """A type as it stands in the source."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace('typing.', '').replace('NoneType', 'None')
