"""Learned words in the file formats of the field.

The files that are read are laid out by hand, as other programs write them.
"""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from mmengine.logging import MessageHub
from safetensors.torch import load_file, save_file
from tiny import make_hiper
from torch import nn

from mmhiper.io import (
    TOKEN_FORMATS,
    TokenFile,
    read_token_file,
    write_export,
    write_token_file,
)
from mmhiper.io.known_formats import suffix_of
from mmhiper.io.modelspec import without_fields
from mmhiper.io.state import read_state
from mmhiper.models.words import check_widths


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
    assert without_fields(tokens.metadata) == record


@pytest.mark.parametrize('name', ['embeddings.pti', 'a.safetensors', 'a.bin'])
@pytest.mark.parametrize('batched', [False, True])
def test_pivotal_tuning(tmp_path, name, batched):
    path = tmp_path / name
    first, second = rows(2, 768), rows(2, 1280, seed=1)
    content = {'text_encoders_0': first, 'text_encoders_1': second}
    if batched:
        content = {key: table[None] for key, table in content.items()}
    (torch.save if name == 'a.bin' else save_file)(content, path)

    tokens = read_token_file(path)

    assert tokens.format == 'pivotal'
    names = ['<s0>', '<s1>']
    each = [dict(zip(names, t.split(1), strict=True)) for t in (first, second)]
    assert same(tokens, *each)
    # one word, where it is said which
    assert same(
        read_token_file(path, '<me>'), {'<me>': first}, {'<me>': second}
    )


def test_pivotal_tuning_of_one_text_encoder(tmp_path):
    save_file({'text_encoders_0': rows(1)}, tmp_path / 'a.pti')

    assert same(read_token_file(tmp_path / 'a.pti'), {'<s0>': rows(1)})
    save_file(
        {'text_encoders_0': rows(1), 'text_encoders_1': rows(2, 1280)},
        tmp_path / 'a.pti',
    )
    with pytest.raises(ValueError, match=r'a\.pti.*as many rows'):
        read_token_file(tmp_path / 'a.pti')


@pytest.mark.parametrize(
    'content',
    [
        {'<a>': rows()[None]},
        {'emb_params': rows()[None]},
        {'string_to_param': {'*': rows()[None]}, 'name': '<a>'},
        {f'{TABLE}.trainable_embeddings.<a>': rows()[None]},
    ],
)
def test_rows_with_a_dimension_for_a_batch_of_one(tmp_path, content):
    torch.save(content, tmp_path / '<a>.pt')

    assert same(read_token_file(tmp_path / '<a>.pt'), {'<a>': rows()})


@pytest.mark.parametrize('shape', [(768,), (2, 768), (1, 2, 768)])
@pytest.mark.parametrize('kind', [torch.Tensor.clone, nn.Parameter])
def test_a_bare_tensor_is_read_when_it_has_a_name(tmp_path, shape, kind):
    table = rows(shape[-2] if len(shape) > 1 else 1)
    torch.save(kind(table.reshape(shape)), tmp_path / 'a.pt')

    assert same(read_token_file(tmp_path / 'a.pt', '<a>'), {'<a>': table})
    with pytest.raises(
        ValueError, match=r"bare tensor \(.*placeholder='<word>'"
    ):
        read_token_file(tmp_path / 'a.pt')
    # names that a file has stay
    torch.save({'<b>': table}, tmp_path / 'b.pt')
    assert same(read_token_file(tmp_path / 'b.pt', '<a>'), {'<b>': table})


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


LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
PICTURE = b'\x89PNG\r\n\x1a\n' + bytes(30)


@pytest.mark.parametrize('name', ['a.bin', 'a.pt', 'a.safetensors', 'a.pti'])
@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', 'is an empty file'),
        (LFS, 'a pointer of Git LFS.*git lfs pull'),
        (PICTURE, r'a PNG picture.*hidden in a picture.*\.pt file'),
        (b'\xff\xd8\xff\xe0' + bytes(30), 'a JPEG picture'),
        (b'RIFF\0\0\0\0WEBPVP8 ', 'a WebP picture'),
        (b'\n <!DOCTYPE html><html>', 'a web page .*Download the file itself'),
        (b'<html>' + b'x' * 600, 'a web page'),
        (b'{"error": "Invalid username"}', 'a JSON text'),
        (b'[1, 2]', 'a JSON text'),
        (b'<?xml version="1.0"?><Error>', 'an XML document'),
        (b'Entry not found', 'is a text'),
        (b'%PDF-1.7', 'a PDF'),
        (b'\x1f\x8b\x08', 'a gzip archive.*Unpack'),
        (b'Rar!\x1a\x07', 'a RAR archive'),
        (b'\x93NUMPY\x01\0', r'a NumPy array.*torch\.from_numpy'),
        (b'GGUF\x03\0\0\0', 'a GGUF model'),
        (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'a HEIC picture'),
        (bytes(range(100, 200)), 'neither a safetensors nor'),
        (b'PK\x03\x04 truncated', 'neither a safetensors nor'),
    ],
)
def test_no_such_kind_of_file(tmp_path, data, words, name):
    path = tmp_path / name
    path.write_bytes(data)

    with pytest.raises(ValueError, match=words) as error:
        read_token_file(path)

    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_archive_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.bin', 'w') as archive:
        for name in ('cat.safetensors', 'read me.txt', 'b', 'c'):
            archive.writestr(name, 'x')

    with pytest.raises(
        ValueError, match=r'ZIP archive.*cat\.safetensors, read me\.txt, b, '
    ):
        read_token_file(tmp_path / 'a.bin')


def test_the_size_of_a_header_is_no_signature(tmp_path):
    # 2,771,273 bytes: as a number, what a TIFF picture begins with
    path = tmp_path / 'a.safetensors'
    save_file({'<a>': rows()}, path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], 'little')
    wanted = int.from_bytes(b'II*\0', 'little')
    blanks = b' ' * (wanted - size)
    path.write_bytes(b'II*\0' + bytes(4) + data[8 : 8 + size] + blanks)
    with path.open('ab') as file:
        file.write(data[8 + size :])

    assert same(read_token_file(path), {'<a>': rows()})


# What is published for these: a few of the names in a file.
A, B = torch.zeros(4, 8), torch.zeros(8, 4)
OTHERS = {
    'kohya': (
        {
            'lora_unet_mid_block_attn.lora_down.weight': A,
            'lora_unet_mid_block_attn.lora_up.weight': B,
            'lora_unet_mid_block_attn.alpha': torch.tensor(4.0),
        },
        "a LoRA in kohya's layout.*fuse_lora.*`sd.pretrained`",
    ),
    'kohya of a text encoder': (
        {'lora_te1_text_model_encoder_fc1.lora_down.weight': A},
        'a LoRA in kohya',
    ),
    'diffusers': (
        {'unet.mid_block.attn.processor.to_q_lora.down.weight': A},
        'a LoRA in the layout of diffusers',
    ),
    'diffusers of one width': (
        {'unet.mid_block.attn.to_q.lora.down.weight': A},
        'a LoRA in the layout of diffusers',
    ),
    'PEFT': (
        {'base_model.model.to_q.lora_A.weight': A, 'a.lora_B.weight': B},
        'a LoRA in the layout of diffusers or PEFT',
    ),
    'PEFT of a transformer': (
        {'transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight': A},
        'a LoRA',
    ),
    'LoCon': ({'lora_unet_conv.lora_mid.weight': A[..., None]}, 'LoCon'),
    'LoHa': ({'lora_unet_mid.hada_w1_a': A}, 'LoHa'),
    'LoKr': ({'lora_unet_mid.lokr_w1': A}, 'LoKr'),
    'OFT': ({'lora_unet_mid.oft_blocks': A}, 'OFT'),
    'DoRA': (
        {
            'lora_unet_mid.lora_down.weight': A,
            'lora_unet_mid.dora_scale': A[:1],
        },
        'DoRA',
    ),
    'LoRA with words': (
        {
            'lora_unet_mid.lora_down.weight': A,
            'bundle_emb.cat.string_to_param.*': A,
        },
        'a LoRA .* with words bundled in, which are not read',
    ),
    'SD 1': (
        {
            'model.diffusion_model.input_blocks.0.0.weight': A,
            'cond_stage_model.transformer.text_model.x.weight': A,
            'first_stage_model.encoder.conv_in.weight': A,
        },
        r'Stable Diffusion 1.x in a single file.*`backbone`',
    ),
    'SD 2': (
        {
            'model.diffusion_model.out.0.weight': A,
            'cond_stage_model.model.transformer.x': A,
        },
        r'Stable Diffusion 2.x in a single file',
    ),
    'latent diffusion': (
        {'cond_stage_model.transformer.token_emb.weight': rows()},
        'latent diffusion model.*beside the model_index.json',
    ),
    'SD XL': (
        {
            'model.diffusion_model.out.0.weight': A,
            'conditioner.embedders.0.transformer.x': A,
        },
        'Stable Diffusion XL in a single file.*folder in the diffusers',
    ),
    'SD 3': (
        {'model.diffusion_model.joint_blocks.0.x': A},
        'a Stable Diffusion 3 .*folder in the diffusers',
    ),
    'Flux': ({'double_blocks.0.img_attn.proj.weight': A}, 'a Flux model'),
    'a whole model of Lightning': (
        {'state_dict': {'cond_stage_model.transformer.x': A}, 'epoch': 3},
        r'Stable Diffusion 1.x',
    ),
    'U-Net': (
        {'down_blocks.0.attentions.0.x': A, 'conv_in.weight': A},
        r'the U-Net.*`sd\.unet\.pretrained`',
    ),
    'VAE': (
        {'encoder.down_blocks.0.x': A, 'quant_conv.weight': A},
        r'the autoencoder.*`sd\.vae\.pretrained`',
    ),
    'VAE of the original': ({'decoder.up.0.block.0.x': A}, 'autoencoder'),
    'text encoder': (
        {'text_model.embeddings.token_embedding.weight': A},
        r'a text encoder.*`sd\.text_encoder\.pretrained`',
    ),
    'CLIP': (
        {'text_model.x': A, 'vision_model.embeddings.x': A},
        'a CLIP model.*`clip`',
    ),
    'ControlNet': (
        {'controlnet_cond_embedding.conv_in.weight': A, 'down_blocks.0.x': A},
        'a ControlNet',
    ),
    'ControlNet of the original': (
        {'control_model.input_blocks.0.0.weight': A},
        'a ControlNet',
    ),
    'T2I-Adapter': ({'adapter.body.0.resnets.0.block1.weight': A}, 'T2I-'),
    'IP-Adapter': (
        {'image_proj': {'proj.weight': A}, 'ip_adapter': {'1.to_k_ip': A}},
        'an IP-Adapter.*load_ip_adapter',
    ),
    'IP-Adapter of safetensors': (
        {'image_proj.proj.weight': A, 'ip_adapter.1.to_k_ip.weight': A},
        'an IP-Adapter',
    ),
    'hypernetwork': (
        {768: ({'linear.0.weight': A}, {}), 'step': 9, 'name': 'x'},
        'a hypernetwork of the A1111 web UI.*models/hypernetworks',
    ),
    'motion module': (
        {'down_blocks.0.motion_modules.0.temporal_transformer.x': A},
        'AnimateDiff',
    ),
    'word of Flux': (
        {'clip_l': rows(2), 't5': rows(2, 4096)},
        "'clip_l', 't5': a word of Flux or another",
    ),
    'word of T5 alone': ({'t5xxl': rows(2, 4096)}, 'a word of Flux'),
    'pivotal word of SD 3': (
        {f'text_encoders_{i}': rows(1) for i in range(3)},
        "Wanted rows for a Stable Diffusion XL.*'text_encoders_2'",
    ),
}


@pytest.mark.parametrize('name', OTHERS)
def test_files_of_the_field_that_are_no_words_are_named(tmp_path, name):
    content, words = OTHERS[name]
    path = tmp_path / 'file.ckpt'
    torch.save(content, path)
    paths = [path]
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        paths.append(tmp_path / 'file.safetensors')
        save_file({k: v.clone() for k, v in content.items()}, paths[1])

    for path in paths:
        with pytest.raises(ValueError, match=words) as error:
            read_token_file(path)
        assert str(path) in str(error.value)
        assert len(str(error.value).splitlines()) == 1
        if 'word' not in name:  # and in place of a checkpoint
            with pytest.raises(ValueError, match=words):
                read_state(path)


@pytest.mark.parametrize('word', ['lora_best', '<lora-b>', 'control', 'clip'])
def test_words_may_be_called_like_something_else(tmp_path, word):
    save_file({word: rows()}, tmp_path / 'a.safetensors')

    assert read_token_file(tmp_path / 'a.safetensors').placeholders == [word]


def test_a_word_of_another_width_is_said_to_be_so(tmp_path):
    save_file({'<a>': rows(1, 4096)}, tmp_path / 'a.safetensors')
    tokens = read_token_file(tmp_path / 'a.safetensors')

    with pytest.raises(ValueError, match='T5, a text encoder of Stable Diff'):
        check_widths(tokens, 'a.safetensors', [768], 'mini-sd')


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
        (rows(), r'a bare tensor \(2, 768\)'),
        (3, 'holds a int'),
        ([rows()], 'holds a list'),
        ({}, 'it is empty'),
        ({'down.weight': rows(4, 320), 'up': rows(8, 4)}, r'\(4, 320\)'),
        ({'vocabulary': rows(100, 8)}, r'vocabulary \(100, 8\)'),
        ({'epoch': 3, 'optimizer': {}}, r'epoch \(int\)'),
        ({'string_to_param': {}, 'string_to_token': {}}, 'got none'),
        ({'string_to_param': {}, 'name': 'a'}, 'has 0'),
        (
            {'string_to_param': {'*': rows(4).reshape(2, 2, 768)}},
            r'\(2, 2, 768',
        ),
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

    assert without_fields(read_token_file(path).metadata) == record


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


def test_a_format_says_how_its_files_end(tmp_path):
    assert TOKEN_FORMATS
    for name in TOKEN_FORMATS:
        path = tmp_path / f'toy{suffix_of(name)}'
        write_token_file(path, {'*': rows()}, name)
        (read,) = read_token_file(path).embeddings.values()
        assert torch.equal(read, rows())
