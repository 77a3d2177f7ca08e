"""Values of a config on the command line."""

import argparse

import pytest
from runs import DOG

from mmhiper.cli import main
from mmhiper.cli.options import ConfigOptions, read_value


def parse(*values):
    """The options of a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    return parser.parse_args(['--cfg-options', *values]).cfg_options


@pytest.mark.parametrize(
    'text',
    ['a standing dog', 'a dog, on the grass', ' two  blanks ', '', ' ', 'a,b']
    + ['1,2', '1, 2', 'a=b', 'x==y=', '<cat-toy>', 'photos/a, b (1).png']
    + [r'C:\new\table, 2\dog.png', r'\\server\share\[a]', '~/a b/dog.png']
    + ['[a] dog', 'dog [a]', '[a] or [b]', '(a) dog', 'a (b, c)', 'a,(b']
    + ['[a', 'a]', '[1, 2', '(masterpiece)', '(best quality), dog', '(a, b)']
    + ['{} on grass', '{}', '{cat|dog}', '{a, b}', '[x].png', '(1).png']
    + ["it's a dog", "'tis a dog", "a dog's", '5"', '"a" and "b"', "'a', 'b'"]
    + ['007', '2024_01', '1_000', '0x10', '1.2.3', '1e999', 'nan', 'inf']
    + ['Infinity', '5e-3x', 'none', 'Nonesuch', '\uff12', '猫 {}', '\t']
    + ['model.x=[1, 2]', '1+2j', "b'a'", "r'a'", '--', '#1', '(1)', '$HOME']
    + ["('a') or ('b')", "[it's] a dog", 'sks,', ',', "'", '"', "''' '"],
)
def test_texts_and_paths_stay_what_they_are(text):
    assert parse(f'model.x={text}') == {'model.x': text}


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('3', 3),
        ('-3', -3),
        ('0', 0),
        (' 7 ', 7),
        ('1e-4', 1e-4),
        ('5E3', 5e3),
        ('.5', 0.5),
        ('-1.', -1.0),
        ('True', True),
        ('true', True),
        ('FALSE', False),
        ('None', None),
        ('"a standing dog"', 'a standing dog'),
        ("'None'", 'None'),
        ("'5'", '5'),
        ('""', ''),
        ('"[a]"', '[a]'),
        ("'C:\\new\\'", 'C:\\new\\'),
        ('"it\'s, well"', "it's, well"),
        ('[]', []),
        ('()', ()),
        ("['a dog', 'a cat']", ['a dog', 'a cat']),
        ("['a, b','c']", ['a, b', 'c']),
        ("['a]', '[b', '{}']", ['a]', '[b', '{}']),
        (r"['C:\new\a.png', '\\s\t']", [r'C:\new\a.png', r'\\s\t']),
        ("[('a dog', 1), None]", [('a dog', 1), None]),
        ('[[1, [2.5, -3]], (4,)]', [[1, [2.5, -3]], (4,)]),
        ('(0.9, 0.999)', (0.9, 0.999)),
        ('[1,2,]', [1, 2]),
        ('{\'a\': 1, "b c": [True, {}]}', {'a': 1, 'b c': [True, {}]}),
        ("[{'type': 'X', 'crop': (1, 2)}]", [{'type': 'X', 'crop': (1, 2)}]),
        ("['ein Hündchen', '猫']", ['ein Hündchen', '猫']),
    ],
)
def test_numbers_and_lists(text, value):
    read = parse(f'x={text}')['x']

    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('x=[a dog, a cat]', 'x: [a dog, a cat] is no list: a is in no quote'),
        ('x=[name]', '[name] is no list: name is in no quotes'),
        ("x=['a' 'b']", "'b' is where , should be"),
        ("x=['a', b]", 'b is in no quotes'),
        ("x=('a', b)", 'b is in no quotes'),
        ("x={'a': b}", 'b is in no quotes'),
        ("x={1: 'b'}", 'the key 1 is in no quotes'),
        ("x=[1, 'it's']", 'is no list'),
        ('x=[1,,2]', ', is in no quotes'),
        ('x=[007]', '007 is in no quotes'),
        ('x', 'wanted KEY=VALUE, got x.'),
        ('=5', 'wanted KEY=VALUE, got =5.'),
    ],
)
def test_what_cannot_be_read_is_refused(capsys, text, message):
    with pytest.raises(SystemExit) as exit_:
        parse(text)

    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_options_given_twice_and_blanks_around_keys():
    parser = argparse.ArgumentParser()
    parser.add_argument('-o', nargs='+', action=ConfigOptions)

    read = parser.parse_args(['-o', 'a=1', ' b =x', '-o', 'a=2', 'c=']).o

    assert read == {'a': 2, 'b': 'x', 'c': ''}
    assert read_value('[1]') == [1]


def test_debug_shows_what_was_understood(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ['train', str(DOG), '--debug', '--work-dir', 'run']
    values = [
        'model.source_text=a, b',
        'train_cfg.max_iters=0',
        "model.val_prompts=['a']",
    ]

    with pytest.raises(ValueError, match='max_iters'):
        main([*words, '--cfg-options', *values])

    assert capsys.readouterr().out.startswith(
        "model.source_text = 'a, b' (str)\n"
        'train_cfg.max_iters = 0 (int)\n'
        "model.val_prompts = ['a'] (list)\n"
    )
