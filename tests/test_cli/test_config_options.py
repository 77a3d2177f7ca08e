"""Values of a config on the command line."""

import argparse

import pytest
from mmengine.config import DictAction

from mmhiper.cli.options import ConfigOptions


def parse(*values, action=ConfigOptions):
    """The options of a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=action)
    return parser.parse_args(['--cfg-options', *values]).cfg_options


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('a standing dog', 'a standing dog'),
        ('"a standing dog"', 'a standing dog'),
        ('a dog, on the grass', 'a dog, on the grass'),
        ("['a dog', 'a cat']", ['a dog', 'a cat']),
        ("['a dog','a cat']", ['a dog', 'a cat']),
        ("[('a dog', 1), None]", [('a dog', 1), None]),
        ('(0.9, 0.999)', (0.9, 0.999)),
        ('1, 2', [1, 2]),
        ('[a, [b, c]]', ['a', ['b', 'c']]),
        (' 7 ', 7),
    ],
)
def test_blanks_of_texts_stay(text, value):
    assert parse(f'model.x={text}') == {'model.x': value}


@pytest.mark.parametrize(
    'text',
    ['1e-4', '3', 'None', 'true', 'a,b', '[(1,2),x]', '(1,2,3,4)', "'a'", '']
    + ['a=b', '<cat-toy>'],
)
def test_without_blanks_it_is_as_mmengine_has_it(text):
    assert parse(f'x={text}') == parse(f'x={text}', action=DictAction)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('x=[a dog, a cat]', 'must be in quotes: [a dog, a cat]'),
        ('x', 'wanted KEY=VALUE, got x'),
        ('x=a,(b', 'Imbalanced brackets'),
    ],
)
def test_what_cannot_be_read_is_refused(capsys, text, message):
    with pytest.raises(SystemExit) as exit_:
        parse(text)

    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
