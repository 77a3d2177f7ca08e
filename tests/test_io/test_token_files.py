"""Learned words in the file formats of the field.

The files that are read are laid out by hand, as other programs write them.
"""

import os
import pickle

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from mmengine.logging import MessageHub
from safetensors.torch import load_file, save_file
from tiny import make_hiper
from torch import nn

from mmhiper.io import (
    TokenFile,
    read_token_file,
    write_export,
    write_token_file,
)


def rows(count: int = 2, width: int = 768, seed: int = 0) -> torch.Tensor:
    """Random rows (count, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator)


def same(tokens: TokenFile, embeddings: dict, second: dict | None = None):
    """Whether a file was read as these rows, bit for bit."""
    for got, wanted in (
        (tokens.embeddings, embeddings),
        (tokens.second, second or {}),
    ):
        assert list(got) == list(wanted)
        for placeholder, tensor in wanted.items():
            assert got[placeholder].dtype == torch.float32
            assert torch.equal(got[placeholder], tensor)
    return True


# -- reading what others wrote ----------------------------------------------


@pytest.mark.parametrize('suffix', ['.safetensors', '.bin'])
def test_diffusers(tmp_path, suffix):
    path = tmp_path / f'learned_embeds{suffix}'
    wanted = rows(1)
    # a single vector without a dimension for their number
    content = {'<cat-toy>': wanted[0]}
    (save_file if suffix == '.safetensors' else torch.save)(content, path)

    tokens = read_token_file(path)

    assert tokens.format == 'diffusers'
    assert same(tokens, {'<cat-toy>': wanted})


def test_a_file_is_known_by_its_content_not_its_suffix(tmp_path):
    torch.save({'<a>': rows()}, tmp_path / 'a.safetensors')
    save_file({'<a>': rows()}, tmp_path / 'a.pt')

    assert same(read_token_file(tmp_path / 'a.safetensors'), {'<a>': rows()})
    assert same(read_token_file(tmp_path / 'a.pt'), {'<a>': rows()})


def test_half_precision_becomes_fp32(tmp_path):
    half = rows().half()
    save_file({'<a>': half}, tmp_path / 'a.safetensors')

    assert same(read_token_file(tmp_path / 'a.safetensors'), {'<a>': half})


def test_files_of_old_pytorch(tmp_path):
    torch.save(
        {'<a>': rows()},
        tmp_path / 'a.bin',
        _use_new_zipfile_serialization=False,
    )

    assert same(read_token_file(tmp_path / 'a.bin'), {'<a>': rows()})


@pytest.mark.parametrize(
    ('name', 'placeholder'), [('my cat', 'my cat'), (None, 'file')]
)
def test_a1111(tmp_path, name, placeholder):
    path = tmp_path / 'file.pt'
    torch.save(
        {
            'string_to_token': {'*': 265},
            'string_to_param': {'*': rows(3)},
            'name': name,
            'step': 499,
            'sd_checkpoint': '81761151',
            'sd_checkpoint_name': None,
        },
        path,
    )

    tokens = read_token_file(path)

    assert tokens.format == 'a1111'
    assert same(tokens, {placeholder: rows(3)})
    assert tokens.metadata == {'step': '499', 'sd_checkpoint': '81761151'}


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_kohya(tmp_path, suffix):
    path = tmp_path / f'cat{suffix}'
    content = {'emb_params': rows(4)}
    if suffix == '.safetensors':
        save_file(content, path, {'ss_steps': '7'})
    else:
        torch.save(content, path)

    tokens = read_token_file(path)

    assert tokens.format == 'kohya'
    assert same(tokens, {'cat': rows(4)})
    assert tokens.metadata == (
        {'ss_steps': '7'} if suffix == '.safetensors' else {}
    )


@pytest.mark.parametrize(
    'keys', [('clip_l', 'clip_g'), ('clip_l',), ('clip_g',)]
)
def test_sdxl(tmp_path, keys):
    path = tmp_path / 'cat.safetensors'
    both = {'clip_l': rows(2, 768), 'clip_g': rows(2, 1280)}
    save_file({key: both[key] for key in keys}, path)

    tokens = read_token_file(path)

    assert tokens.format == 'kohya'
    first, second = ({'cat': both[key]} if key in keys else {} for key in both)
    assert same(tokens, first, second)


def test_rows_behind_the_text_encoder_are_refused(tmp_path):
    path = tmp_path / 'cat.safetensors'
    save_file({'clip_l': rows(), 'clip_l_out': rows()}, path)

    with pytest.raises(ValueError, match='clip_l_out'):
        read_token_file(path)


@pytest.mark.parametrize('kind', [dict, nn.ParameterDict])
def test_original(tmp_path, kind):
    path = tmp_path / 'embeddings_gs-5000.pt'
    param = {'*': nn.Parameter(rows(2)), '@': nn.Parameter(rows(1, seed=1))}
    token = {'*': torch.tensor(265), '@': torch.tensor(287)}
    torch.save(
        {'string_to_token': token, 'string_to_param': kind(param)}, path
    )

    tokens = read_token_file(path)

    assert tokens.format == 'original'
    assert same(tokens, {'*': rows(2), '@': rows(1, seed=1)})


TABLE = 'text_encoder.model.text_model.embeddings.token_embedding'


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrap', [True, False])
def test_mmagic(tmp_path, prefix, wrap):
    path = tmp_path / 'iter_3000.pth'
    words = {'<cat-toy>': rows(2), 'a b/$': rows(1, seed=1)}
    state = {
        'vae.model.encoder.conv_in.weight': torch.zeros(4, 3, 3, 3),
        f'{TABLE}.wrapped.weight': torch.zeros(100, 768),
    }
    state |= {f'{TABLE}.trainable_embeddings.{w}': r for w, r in words.items()}
    state = {prefix + key: tensor for key, tensor in state.items()}
    torch.save(dict(state_dict=state) if wrap else state, path)

    tokens = read_token_file(path)

    assert tokens.format == 'mmagic'
    assert same(tokens, words)


def test_mmagic_checkpoint_with_the_objects_of_its_runner(tmp_path):
    # MMEngine writes the history of the logs as objects, with each one
    # plain weights-only loading fails
    path = tmp_path / 'iter_3000.pth'
    hub = MessageHub('mmagic')
    hub.update_scalar('train/loss', np.float32(0.3))
    hub.update_info('value', np.float64(0.3))
    checkpoint = dict(
        meta=dict(iter=3000, cfg='model = ...'),
        state_dict={f'{TABLE}.trainable_embeddings.<a>': rows()},
        message_hub=hub.state_dict(),
    )
    torch.save(checkpoint, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)

    tokens = read_token_file(path)

    assert same(tokens, {'<a>': rows()})
    assert tokens.metadata == {'step': '3000'}
    # and nothing has become loadable by that
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_own_export(tmp_path):
    path = tmp_path / 'iter_3000.safetensors'
    record = dict(editor='TextualInversion', backbone='mini-sd')
    write_export(path, {'<a>': rows(), '<b>': rows(seed=1)}, record)

    tokens = read_token_file(path)

    assert same(tokens, {'<a>': rows(), '<b>': rows(seed=1)})
    assert tokens.metadata == record


# -- refusing ----------------------------------------------------------------


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('how', ['system', 'eval', 'bare', 'hidden'])
def test_code_in_a_file_is_not_run(tmp_path, how, zipped):
    proof = tmp_path / 'proof'
    code = f'open({str(proof)!r}, "w").close()'
    evil = {
        'system': Malicious(os.system, f'touch {proof}'),
        'eval': Malicious(eval, code),
        'bare': Malicious(exec, code),
        'hidden': {'<a>': rows(), 'x': Malicious(eval, code)},
    }[how]
    content = {'<a>': rows(), 'name': evil}
    path = tmp_path / 'evil.pt'
    if how == 'bare':
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(ValueError, match='needs more than tensors') as error:
        read_token_file(path)

    assert not proof.exists()
    assert "torch.save({'<word>': rows}" in str(error.value)
    # it would have been run
    pickle.loads(pickle.dumps(evil))
    assert proof.exists()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.bin'):
        read_token_file(tmp_path / 'none.bin')


def test_folder(tmp_path):
    with pytest.raises(ValueError, match='is a folder'):
        read_token_file(tmp_path)


@pytest.mark.parametrize(
    'data', [b'', b'<!DOCTYPE html><html>', b'PK\x03\x04 truncated']
)
def test_no_such_kind_of_file(tmp_path, data):
    path = tmp_path / 'page.bin'
    path.write_bytes(data)

    with pytest.raises(ValueError, match='neither a safetensors nor'):
        read_token_file(path)


@pytest.mark.parametrize('suffix', ['.safetensors', '.bin'])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    write_token_file(path, {'<a>': rows()})
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ValueError, match='complete'):
        read_token_file(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (rows(), 'holds a Tensor'),
        ({}, 'it is empty'),
        ({'lora_down.weight': rows(4, 320), 'up': rows(8, 4)}, r'\(4, 320\)'),
        ({'vocabulary': rows(100, 8)}, r'vocabulary \(100, 8\)'),
        ({'epoch': 3, 'optimizer': {}}, r'epoch \(int\)'),
        ({'string_to_param': {}, 'string_to_token': {}}, 'got none'),
        ({'string_to_param': {}, 'name': 'a'}, 'has 0'),
        ({'string_to_param': {'*': rows()[None]}}, r'shape \(1, 2, 768\)'),
        ({'string_to_param': {'*': 3}}, 'tensor of floats, but got int'),
        ({'emb_params': rows().int()}, r'but got torch\.int32'),
        ({'emb_params': rows(0)}, r'shape \(0, 768\)'),
        ({'emb_params': rows() / 0}, 'finite'),
        ({'clip_l': rows(1), 'clip_g': rows(2, 1280)}, 'got 1 and 2'),
        (
            {'string_to_param': {'*': rows(1), '@': rows(1, 1024)}},
            'must have one width',
        ),
    ],
)
def test_no_embedding(tmp_path, content, message):
    path = tmp_path / 'file.pt'
    torch.save(content, path)

    with pytest.raises(ValueError, match=message) as error:
        read_token_file(path)

    assert str(path) in str(error.value)


def test_own_files_of_another_kind(tiny_sd1, tmp_path):
    editor = make_hiper(tiny_sd1)
    export = tmp_path / 'iter_5.safetensors'
    write_export(export, editor.learned_state(), editor.export_metadata())
    with pytest.raises(ValueError, match="editor of this export is 'HiPer'"):
        read_token_file(export)

    checkpoint = tmp_path / 'iter_5.pth'
    content = dict(
        state_dict=editor.state_dict(),
        meta=dict(embedding=editor.export_metadata()),
    )
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match='export beside it'):
        read_token_file(checkpoint)


# -- writing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'format', 'words'),
    [
        ('x.safetensors', None, ['<a>', '<b>']),
        ('x.bin', None, ['<a>', '<b>']),
        ('x.bin', 'diffusers', ['<a>']),
        ('x.pt', 'a1111', ['<a>']),
        ('x.safetensors', 'kohya', ['x']),
        ('x.pt', 'original', ['*', '@']),
    ],
)
def test_what_is_written_is_read_back(tmp_path, name, format, words):
    wanted = {word: rows(2, seed=i) for i, word in enumerate(words)}

    write_token_file(tmp_path / name, wanted, format)

    tokens = read_token_file(tmp_path / name)
    assert tokens.format == (format or 'diffusers')
    assert same(tokens, wanted)
    assert os.listdir(tmp_path) == [name]


def test_sdxl_is_written_and_read_back(tmp_path):
    path = tmp_path / 'cat.safetensors'
    first, second = {'cat': rows()}, {'cat': rows(2, 1280)}

    write_token_file(path, TokenFile(first, 'kohya', second), 'kohya')

    assert same(read_token_file(path), first, second)
    assert sorted(load_file(path)) == ['clip_g', 'clip_l']


def test_a1111_layout(tmp_path):
    path = tmp_path / 'cat.pt'
    tokens = TokenFile({'<a>': rows()}, 'x', metadata=dict(step='5'))

    write_token_file(path, tokens, 'a1111')

    content = torch.load(path)
    assert torch.equal(content.pop('string_to_param')['*'], rows())
    assert content == dict(
        string_to_token={'*': 265},
        name='<a>',
        step=5,
        sd_checkpoint=None,
        sd_checkpoint_name=None,
    )


def test_original_stores_the_ids_of_the_vocabulary(tmp_path):
    path = tmp_path / 'x.pt'
    write_token_file(path, {'*': rows(), 'a': rows()}, 'original')

    # as CLIP's tokenizer has them
    assert torch.load(path)['string_to_token'] == {'*': 265, 'a': 320}


def test_metadata_stays(tmp_path):
    path = tmp_path / 'a.safetensors'
    record = dict(editor='TextualInversion', backbone='mini-sd')

    write_token_file(path, TokenFile({'<a>': rows()}, 'x', metadata=record))

    assert read_token_file(path).metadata == record


@pytest.mark.parametrize(
    ('name', 'format', 'words', 'message'),
    [
        ('x.pt', None, ['<a>'], r"'diffusers' end in \.safetensors or \.bin"),
        ('x.bin', 'a1111', ['<a>'], r"'a1111' end in \.pt"),
        ('x.pth', 'mmagic', ['<a>'], '`format` must be one of'),
        ('x.pt', 'a1111', ['<a>', '<b>'], 'holds one word'),
        ('x.safetensors', 'kohya', ['<a>', '<b>'], 'holds one word'),
        ('x.pt', 'original', ['<a>'], "but got '<a>'"),
        ('x.pt', 'original', ['A'], "but got 'A'"),
        ('x.bin', None, [], 'at least one placeholder'),
        ('x.bin', None, [' '], "but got ' '"),
    ],
)
def test_writing_refuses(tmp_path, name, format, words, message):
    with pytest.raises(ValueError, match=message):
        write_token_file(
            tmp_path / name, {word: rows() for word in words}, format
        )

    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ('name', 'format'),
    [('x.bin', 'diffusers'), ('x.pt', 'a1111'), ('x.pt', 'original')],
)
def test_a_second_text_encoder_is_not_dropped(tmp_path, name, format):
    tokens = TokenFile({'*': rows()}, 'kohya', {'*': rows(2, 1280)})

    with pytest.raises(ValueError, match="Use the format 'kohya'"):
        write_token_file(tmp_path / name, tokens, format)


def test_no_folder_to_write_to(tmp_path):
    with pytest.raises(FileNotFoundError, match='none'):
        write_token_file(tmp_path / 'none' / 'a.bin', {'<a>': rows()})


# -- in an unmodified diffusers ----------------------------------------------


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize(
    ('name', 'format', 'options'),
    [
        ('x.safetensors', 'diffusers', {}),
        ('x.bin', 'diffusers', {}),
        ('x.pt', 'a1111', {}),
        ('x.safetensors', 'kohya', dict(token='<a>')),
    ],
)
def test_diffusers_loads_it(tiny_sd1, tmp_path, name, format, options, count):
    wanted = rows(count, 32)
    record = dict(editor='TextualInversion')
    tokens = TokenFile({'<a>': wanted}, 'x', metadata=record)
    write_token_file(tmp_path / name, tokens, format)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd1)
    before = pipeline.text_encoder.get_input_embeddings().weight.detach()

    pipeline.load_textual_inversion(str(tmp_path / name), **options)

    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    words = ['<a>', '<a>_1', '<a>_2'][:count]
    ids = pipeline.tokenizer.convert_tokens_to_ids(words)
    assert ids == list(range(len(before), len(before) + count))
    assert torch.equal(table[ids], wanted)
    assert torch.equal(table[: len(before)], before)
    prompt = pipeline.maybe_convert_prompt('a <a> b', pipeline.tokenizer)
    assert pipeline.tokenizer(prompt).input_ids[2:-2] == ids
