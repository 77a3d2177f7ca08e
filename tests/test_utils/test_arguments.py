"""Constructor values as plain data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest

from mmhiper.utils.arguments import (
    DEEPEST,
    MOST_VALUES,
    KeepsArguments,
    ValuesOf,
    arguments_of,
    check_arguments,
    check_plain,
)


class Part:
    def __init__(self, size: int = 1, name: str | None = None) -> None:
        pass


class Parent(KeepsArguments):
    def __init__(self, first: str, *, weight: float = 1.0) -> None:
        self.first = first


class Child(Parent):
    def __init__(
        self,
        first: str,
        part: Annotated[dict[str, Any] | None, ValuesOf(Part)] = None,
        anything=None,
        **options: Any,
    ) -> None:
        super().__init__(first, **options)


class Grandchild(Child):
    """Has no constructor of its own."""


def test_a_constructor_is_known_through_its_parents():
    known = arguments_of(Grandchild)

    assert list(known) == ['first', 'part', 'anything', 'weight']
    assert known['first'].required and not known['weight'].required
    assert known['weight'].annotation is float
    assert known['anything'].annotation is Any


def test_what_was_given_is_kept_with_defaults():
    part = dict(type='own.Part', size=3)
    child = Grandchild('a', part, weight=2, anything=('x', [1.5, None, True]))
    part['size'] = 4  # later, elsewhere

    expected = dict(
        first='a',
        part=dict(size=3),
        anything=['x', [1.5, None, True]],
        weight=2,
    )
    assert child.given_arguments() == expected
    assert copy.deepcopy(child).given_arguments() == expected
    assert Parent(first='b').given_arguments() == dict(first='b', weight=1.0)


@pytest.mark.parametrize(
    'value',
    [
        object(),
        dict(type='os.system'),
        [dict(a=dict(type='x'))],
        float('nan'),
        {1: 2},
        b'bytes',
        print,
        '\ud800',
    ],
)
def test_what_is_not_plain_is_left_out(value):
    child = Child('a', anything=value)

    assert 'anything' not in child.given_arguments()
    assert 'anything' not in copy.deepcopy(child).given_arguments()


def test_a_wrong_call_stays_a_type_error():
    with pytest.raises(TypeError, match='unexpected'):
        Child('a', unknown=1)


class Everything:
    def __init__(
        self,
        text: str = '',
        count: int = 0,
        share: float = 0.0,
        flag: bool = False,
        texts: str | list[str] | None = None,
        pair: tuple[int, str] = (0, ''),
        weights: Mapping[str, float] | None = None,
        words: Sequence[str | Sequence[str]] = (),
        kind: Literal['a', 'b'] = 'a',
        part: Annotated[dict[str, Any] | None, ValuesOf(Part)] = None,
        free: dict | None = None,
    ) -> None:
        pass


KNOWN = arguments_of(Everything)


@pytest.mark.parametrize(
    'values',
    [
        dict(text='2024', count=3, share=2, flag=True),
        dict(share=0.5, texts=['a', 'b'], pair=[1, 'a'], kind='b'),
        dict(texts=None, weights=dict(hat=2, red=0.5), words=['a', ['b']]),
        dict(part=dict(size=2, name='x'), free=dict(a=[1, dict(b=2)])),
        dict(part=None),
    ],
)
def test_what_fits(values):
    check_plain(values)
    check_arguments(values, KNOWN)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        (dict(text=5), '`text` must be str, but got 5'),
        (dict(count='5'), "`count` must be int, but got '5'"),
        (dict(count=True), '`count` must be int, but got True'),
        (dict(count=1.0), '`count` must be int'),
        (dict(share='1'), '`share` must be float'),
        (dict(share=True), '`share` must be float'),
        (dict(flag=1), '`flag` must be bool'),
        (dict(texts=['a', 1]), r'`texts` must be str \| list\[str\] \| None'),
        (dict(texts=dict(a=1)), '`texts` must be'),
        (dict(weights=dict(hat='2')), '`weights` must be'),
        (dict(words=['a', [1]]), '`words` must be'),
        (dict(kind='c'), '`kind` must be'),
        (dict(part=dict(size='x')), '`part`: `size` must be int'),
        (dict(part=dict(depth=1)), "`part`: 'depth' is unknown"),
        (dict(part='x'), '`part` must be'),
        (dict(other=1), "'other' is unknown; wanted some of text, count"),
    ],
)
def test_what_does_not_fit(values, words):
    with pytest.raises(ValueError, match=words):
        check_arguments(values, KNOWN)


def test_what_is_missing():
    with pytest.raises(ValueError, match='no `first`'):
        check_arguments({}, arguments_of(Child))


def loop() -> list:
    loop: list = []
    loop.append(loop)
    return loop


def bomb() -> list:
    bomb: list = ['x']
    for _ in range(DEEPEST - 2):
        bomb = [bomb] * 1000
    return bomb


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        (dict(a=dict(type='os.system')), "has a 'type'"),
        (dict(a=[dict(type=print)]), "has a 'type'"),
        (loop(), 'nested more than'),
        (bomb(), f'more than {MOST_VALUES:,} values'),
        ([0] * MOST_VALUES, f'more than {MOST_VALUES:,} values'),
        (dict(a=float('inf')), 'not finite'),
        (dict(a=10**40), 'more than 64 bits'),
        (dict(a=b'x'), 'has a bytes'),
        (dict(a=(1, 2)), 'has a tuple'),
        ({'a': {1: 2}}, 'key that is no text'),
        (['a\ud800'], 'no valid Unicode'),
        ({'a\ud800': 1}, 'no valid Unicode'),
    ],
)
def test_what_is_no_plain_data(value, words):
    with pytest.raises(ValueError, match=words):
        check_plain(value)
