"""Merging and converting embedding files, from the command line."""

import builtins
import os
import runpy
import sys

import pytest
import torch
from runs import REPO
from safetensors.torch import load_file, save_file

from mmhiper.io import TokenFile, read_token_file, write_token_file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two files with one word each, in the current folder."""
    monkeypatch.chdir(tmp_path)
    os.mkdir('sub')
    save_file({'<cat>': rows(0)}, 'a.safetensors')
    torch.save({'<cat>': rows(1)}, 'sub/a.bin')
    torch.save({'<dog>': rows(2)}, 'b.bin')
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a tool as the shell would; gives its output and error."""

    def run(tool, *words, answers=None):
        given = iter(answers or [])
        asked = []

        def answer(question):
            asked.append(question)
            try:
                return next(given)
            except StopIteration:
                raise EOFError from None

        path = str(REPO / 'tools' / tool)
        monkeypatch.setattr(sys, 'argv', [path, *words])
        monkeypatch.setattr(
            sys.stdin, 'isatty', lambda: answers is not None, raising=False
        )
        monkeypatch.setattr(builtins, 'input', answer)
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(path, run_name='__main__')
        out, error = capsys.readouterr()
        assert exit_.value.code == bool(error)
        return out, error, asked

    return run


def rows(seed, count=2, width=768):
    """Random rows (count, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator)


def holds(path, words):
    """Whether a file has these words with the rows of these seeds."""
    got = read_token_file(path).embeddings
    assert list(got) == list(words)
    return all(torch.equal(got[word], rows(words[word])) for word in words)


# -- merge_embeddings.py -----------------------------------------------------


@pytest.mark.parametrize('out', ['out.safetensors', 'new/out.bin'])
def test_merge(folder, call, out):
    printed, error, asked = call(
        'merge_embeddings.py', 'a.safetensors', 'b.bin', '--out', out
    )

    assert holds(out, {'<cat>': 0, '<dog>': 2})
    assert out in printed and '<cat>' in printed and '<dog>' in printed
    assert not error and not asked


@pytest.mark.parametrize(
    ('renames', 'words'),
    [
        (['sub/a.bin:<cat>=<tom>'], {'<cat>': 0, '<tom>': 1}),
        (['a.safetensors:<cat>=<tom>'], {'<tom>': 0, '<cat>': 1}),
        # the one of the file comes first, in whatever order
        (
            ['sub/a.bin:<cat>=<tom>', '<cat>=<tiger>'],
            {'<tiger>': 0, '<tom>': 1},
        ),
    ],
)
def test_a_clash_is_settled_by_options(folder, call, renames, words):
    call(
        'merge_embeddings.py',
        *['a.safetensors', 'sub/a.bin', '--out', 'out.bin'],
        *['--rename', *renames],
    )

    assert holds('out.bin', words)


def test_words_can_change_places(folder, call):
    call(
        'merge_embeddings.py',
        *['a.safetensors', 'b.bin', '--out', 'out.bin'],
        *['--rename', '<cat>=<dog>', '--rename', '<dog>=<cat>'],
    )

    assert holds('out.bin', {'<dog>': 0, '<cat>': 2})


def test_placeholders_with_colons_and_equal_signs(folder, call):
    torch.save({'<a:b=c>': rows(3)}, 'odd.bin')
    call(
        'merge_embeddings.py',
        *['odd.bin', 'b.bin', '--out', 'out.bin'],
        *['--rename', 'odd.bin:<a:b=c>=<d=e>'],
    )

    assert holds('out.bin', {'<d=e>': 3, '<dog>': 2})


def test_a_clash_is_an_error_without_a_terminal(folder, call):
    _, error, asked = call(
        *['merge_embeddings.py', 'a.safetensors', 'sub/a.bin'],
        *['--out', 'out.bin'],
    )

    assert "already the word of 'a.safetensors'" in error
    assert "--rename 'sub/a.bin:<cat>=NEW'" in error
    assert not asked and not os.path.exists('out.bin')


def test_a_clash_is_asked_about_on_a_terminal(folder, call):
    _, error, asked = call(
        *['merge_embeddings.py', 'a.safetensors', 'sub/a.bin', 'b.bin'],
        *['--out', 'out.bin'],
        # taken, empty, and one that will do
        answers=['<cat>', ' ', ' <tom> '],
    )

    assert not error
    assert len(asked) == 3 and 'sub/a.bin' in asked[0]
    assert holds('out.bin', {'<cat>': 0, '<tom>': 1, '<dog>': 2})


def test_no_answer(folder, call):
    _, error, _ = call(
        *['merge_embeddings.py', 'a.safetensors', 'sub/a.bin'],
        *['--out', 'out.bin'],
        answers=[],
    )

    assert 'No placeholder was given' in error
    assert not os.path.exists('out.bin')


def test_a_word_inside_another_is_a_clash(folder, call):
    torch.save({'<dog>gy': rows(3)}, 'c.bin')
    _, error, _ = call(
        'merge_embeddings.py', 'b.bin', 'c.bin', '--out', 'out.bin'
    )

    assert "'<dog>gy' contains '<dog>'" in error


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['b.bin', 'none.bin'], "'none.bin' does not exist"),
        (['b.bin', 'b.bin'], 'each file once'),
        (['b.bin', 'wide.bin'], '1024 (Stable Diffusion 2.x)'),
        (['b.bin', '--rename', '<cat>=<a>'], "got '<cat>=<a>'"),
        (['b.bin', '--rename', 'c.bin:<dog>=<a>'], 'b.bin:<dog>'),
        (['b.bin', '--rename', '<dog>='], 'must not be empty'),
        (['b.bin', '--out', 'out.pt'], '.safetensors or .bin'),
        (['b.bin', 'a.safetensors', '--format', 'kohya'], 'one word'),
    ],
)
def test_merge_refuses(folder, call, words, message):
    torch.save({'<wide>': rows(3, width=1024)}, 'wide.bin')
    _, error, _ = call(
        'merge_embeddings.py', '--out', 'out.safetensors', *words
    )

    assert error.startswith('error: ') and message in error
    assert 'Traceback' not in error
    assert not os.path.exists('out.safetensors')


# -- convert_embedding.py ----------------------------------------------------


@pytest.mark.parametrize(
    ('out', 'options', 'format', 'word'),
    [
        ('out.bin', [], 'diffusers', '<cat>'),
        ('out.pt', ['--format', 'a1111'], 'a1111', '<cat>'),
        ('out.safetensors', ['--format', 'kohya'], 'kohya', 'out'),
        (
            'out.pt',
            ['--format', 'original', '--placeholder', '*'],
            'original',
            '*',
        ),
        ('out.bin', ['--placeholder', '<tom>'], 'diffusers', '<tom>'),
    ],
)
def test_convert(folder, call, out, options, format, word):
    printed, error, _ = call(
        'convert_embedding.py', 'a.safetensors', out, *options
    )

    assert not error
    assert read_token_file(out).format == format
    assert holds(out, {word: 0})
    # what is printed is what others will find
    assert f'format    {format}' in printed and f'word      {word}' in printed


def test_convert_names_a_bare_tensor(folder, call):
    torch.save(rows(5)[None], 'bare.pt')

    _, error, _ = call('convert_embedding.py', 'bare.pt', 'out.bin')
    assert "placeholder='<word>'" in error

    words = ['bare.pt', 'out.bin', '--placeholder', '<tom>']
    _, error, _ = call('convert_embedding.py', *words)
    assert not error and holds('out.bin', {'<tom>': 5})


def test_one_word_of_several(folder, call):
    write_token_file('two.bin', {'<a>': rows(3), '<b>': rows(4)})
    words = ['convert_embedding.py', 'two.bin', 'out.pt', '--format', 'a1111']

    _, error, _ = call(*words)
    assert '`only`' in error and not os.path.exists('out.pt')
    _, error, _ = call(*words, '--placeholder', '<c>')
    assert '--only' in error and not os.path.exists('out.pt')
    _, error, _ = call(*words, '--only', '<x>')
    assert "it has '<a>', '<b>'" in error and not os.path.exists('out.pt')

    call(*words, '--only', '<b>', '--placeholder', '<c>')
    assert holds('out.pt', {'<c>': 4})


def test_info(folder, call):
    tokens = TokenFile(
        {'<cat>': torch.ones(2, 768)},
        'kohya',
        {'<cat>': torch.ones(2, 1280) / 2},
        {'steps': '7'},
    )
    write_token_file('cat.safetensors', tokens, 'kohya')
    before = sorted(os.listdir())

    printed, error, _ = call(
        'convert_embedding.py', 'cat.safetensors', '--info'
    )

    lines = printed.splitlines()
    said = [line for line in lines if 'modelspec.' in line]
    assert 'metadata  modelspec.title: <cat>' in said
    assert [line for line in lines if line not in said] == [
        'format    kohya',
        'width     768 + 1280 (Stable Diffusion XL)',
        'word      cat',
        '          2 vector(s), 768 wide, norm 27.7 27.7',
        '          2 vector(s), 1280 wide, norm 17.9 17.9',
        'metadata  steps: 7',
    ]
    assert not error and sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ('width', 'family'),
    [
        (768, 'Stable Diffusion 1.x'),
        (1024, 'Stable Diffusion 2.x'),
        (32, 'no Stable Diffusion release'),
    ],
)
def test_info_names_the_family(folder, call, width, family):
    write_token_file('x.bin', {'<x>': rows(0, 1, width)})

    printed, _, _ = call('convert_embedding.py', 'x.bin', '--info')

    assert f'{width} ({family}' in printed


@pytest.mark.parametrize(
    ('words', 'got'), [([], 'neither'), (['out.bin', '--info'], 'both')]
)
def test_out_or_info(folder, call, words, got):
    _, error, _ = call('convert_embedding.py', 'b.bin', *words)

    assert f'but got {got}' in error and not os.path.exists('out.bin')


@pytest.mark.parametrize(
    'words',
    [
        ['convert_embedding.py', 'b.bin', 'a.safetensors'],
        ['merge_embeddings.py', 'b.bin', '--out', 'a.safetensors'],
    ],
)
def test_a_file_is_replaced_only_when_told(folder, call, words):
    _, error, _ = call(*words)
    assert "'a.safetensors' is already there" in error and '--force' in error
    assert torch.equal(load_file('a.safetensors')['<cat>'], rows(0))

    _, error, _ = call(*words, '--force')
    assert not error
    assert holds('a.safetensors', {'<dog>': 2})
