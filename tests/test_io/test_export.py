"""The project's own file of an embedding."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_hiper

from mmhiper.io import read_export, write_export


def test_what_is_written_is_read_back(tiny_sd1, tmp_path):
    editor = make_hiper(tiny_sd1)
    path = tmp_path / 'iter_5.safetensors'

    write_export(
        path,
        editor.learned_state(),
        dict(editor.export_metadata(), step=5),
    )
    tensors, metadata = read_export(path)

    assert list(tensors) == ['embedding.tail']
    assert torch.equal(tensors['embedding.tail'], editor.embedding.tail)
    assert metadata == dict(editor.export_metadata(), step=5)
    assert path.stat().st_size < 10_000
    # any reader of safetensors can open it, and any user of the machine
    assert torch.equal(load_file(path)['embedding.tail'], tensors.popitem()[1])
    plain = tmp_path / 'plain'
    plain.touch()
    assert os.stat(path).st_mode == os.stat(plain).st_mode


def test_views_can_be_written(tmp_path):
    path = tmp_path / 'view.safetensors'
    view = torch.arange(12.0).reshape(3, 4).T

    write_export(path, dict(a=view), {})

    assert torch.equal(read_export(path)[0]['a'], view)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.safetensors'):
        read_export(tmp_path / 'none.safetensors')


def test_a_truncated_file(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_export(path, dict(a=torch.zeros(100)), {})
    path.write_bytes(path.read_bytes()[:-7])

    with pytest.raises(ValueError, match='not a complete safetensors file'):
        read_export(path)


def test_a_file_of_someone_else_is_named_by_what_it_holds(tmp_path):
    path = tmp_path / 'lora.safetensors'
    save_file(dict(strange=torch.zeros(2)), path)
    with pytest.raises(ValueError, match='strange'):
        read_export(path)

    save_file(dict(lora_up=torch.zeros(2)), path)
    with pytest.raises(ValueError, match='has learned: it is a LoRA'):
        read_export(path)
