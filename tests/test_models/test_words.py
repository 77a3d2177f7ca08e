"""Words of prompts, wherever they come from."""

from __future__ import annotations

import warnings

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_hiper, make_word

from mmhiper.cli import main
from mmhiper.inferencer import EditInferencer
from mmhiper.io import TokenFile, read_state, read_token_file

ROWS = torch.ones(1, 32)
FAST = dict(num_inference_steps=1, show_progress=False)


def words_file(folder, *words):
    path = folder / 'words.safetensors'
    save_file({w: ROWS * (i + 1) for i, w in enumerate(words)}, path)
    return path


# -------------------------------------------------------------------- warnings
@pytest.mark.parametrize(
    ('prompt', 'negative', 'words'),
    [
        ('a <cat-toy> as <sketchy>', None, "'<sketchy>' in 'a <cat-toy> as"),
        ('a <cat-toy>', '<bad-hands>', "'<bad-hands>' in '<bad-hands>'"),
        ('a <cat-toy>, <lora:x:0.8>', None, 'Models of that kind'),
        ('a <cat-toy>, embedding:bad', None, "'embedding:bad' in"),
        ('a dog', None, 'has no placeholder'),
        ('a dog', 'a toy', 'has no placeholder'),
        ('desks of a cat-toy', None, 'has no placeholder'),
    ],
)
def test_what_takes_no_effect_is_said(tiny_sd1, prompt, negative, words):
    editor = make_word(tiny_sd1)
    with pytest.warns(UserWarning, match=words):
        editor.infer(prompt, negative_prompt=negative, **FAST)


@pytest.mark.parametrize(
    ('prompt', 'negative'),
    [
        ('a <Cat-Toy> <|endoftext|>', None),
        ('1 < 2 > 3, a <cat-toy> < x', None),
        ('a dog', 'a <cat-toy>'),  # used, to move away from
        ('a dog', ['a <CAT-toy>']),
    ],
)
def test_what_takes_effect_is_no_warning(tiny_sd1, prompt, negative):
    editor = make_word(tiny_sd1)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        editor.infer(prompt, negative_prompt=negative, **FAST)


def test_other_editors_know_no_words(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    with pytest.warns(UserWarning, match="'<sketchy>' .* Known words: none"):
        editor.infer('a <sketchy> dog', **FAST)


# ---------------------------------------------------------- words out of files
@pytest.mark.parametrize(
    ('word', 'why', 'new'),
    [
        ('MyStyle v2', 'one word without spaces', '<MyStyle-v2>'),
        ('x', 'exists in the vocabulary', '<x>'),
        ('<CAT-toy>', 'exists', '<CAT-toy-2>'),
        ('cat-toy', 'contain', '<cat-toy-2>'),
    ],
)
def test_a_word_that_cannot_be_used(tiny_sd1, tmp_path, word, why, new):
    editor = make_word(tiny_sd1)
    path = words_file(tmp_path, word)
    with pytest.raises(ValueError) as caught:
        editor.load_embeddings([path])
    said = str(caught.value)
    assert str(path) in said and why in said and '\n' not in said
    assert f"--rename '{word}={new}'" in said
    assert f'rename={{{word!r}: {new!r}}}' in said
    assert editor.placeholders == ['<cat-toy>']

    # a word with the taken one in it stays impossible
    good = '<other>' if new == '<cat-toy-2>' else new
    assert editor.load_embeddings([path], {word: good}) == [good]


def test_a_name_that_no_file_has(tiny_sd1, tmp_path):
    editor = make_word(tiny_sd1)
    path = words_file(tmp_path, '<one>', '<two>')
    with pytest.raises(ValueError, match=r"has '<three>', but .* '<one>'"):
        editor.load_embeddings([path], {'<three>': '<new>'})
    with pytest.raises(ValueError, match='no embedding files'):
        EditInferencer(editor, rename={'<one>': '<new>'})
    words = EditInferencer(editor, embeddings=[path], rename={'<one>': '<n>'})
    assert words.words == ['<n>', '<two>']


@pytest.mark.parametrize('name', ['sks', '<old>'])
def test_what_a_word_was_called_elsewhere(tiny_sd1, tmp_path, name):
    editor = make_word(tiny_sd1)
    editor.load_embeddings([words_file(tmp_path, name)], {name: '<new>'})
    with pytest.warns(UserWarning, match=r"called '<new>' here\. Write that"):
        editor.infer(f'a <cat-toy> as {name}', **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        editor.infer('a <cat-toy> on desks', **FAST)
        editor.infer('a <new> and an sks', **FAST)


def test_capitals_are_one_word_in_files_too(tiny_sd1, tmp_path):
    path = words_file(tmp_path, '<CAT-TOY>', '<two>')
    editor = make_word(tiny_sd1, embedding=str(path))
    assert torch.equal(editor.embedding.rows.detach(), ROWS)
    other = make_word(tiny_sd1)
    other.load_state_dict(read_state(path))  # as load_editor does
    assert torch.equal(other.embedding.rows.detach(), ROWS)
    assert other.placeholders == ['<cat-toy>', '<two>']
    tokens = TokenFile({'<a>': ROWS, '<b>': ROWS}, 'diffusers')
    with pytest.raises(ValueError, match='placeholder of its own'):
        tokens.renamed({'<a>': '<B>'})


def test_merging_words_that_differ_in_capitals(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({'<Cat-Toy>': ROWS}, 'one.safetensors')
    save_file({'<cat-toy>': ROWS}, 'two.safetensors')
    merge = ['merge', 'one.safetensors', 'two.safetensors', '--out', 'b.bin']
    with pytest.raises(SystemExit):
        main(merge)
    assert 'capitals do not matter' in capsys.readouterr().err
    assert main([*merge, '--rename', 'two.safetensors:<cat-toy>=<two>']) == 0
    assert read_token_file('b.bin').placeholders == ['<Cat-Toy>', '<two>']


def test_plain_words_whatever_the_capitals(tiny_sd1):
    editor = make_word(tiny_sd1, val_prompts=['A <CAT-toy> on desks'])
    assert editor.comparisons()[0][0] == 'A x on desks'
