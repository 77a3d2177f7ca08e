"""The device is chosen by what PyTorch offers, whatever its name."""

from __future__ import annotations

import shutil
import types

import pytest
import torch
from runs import config
from tiny import make_hiper

from mmhiper.apis import load_editor
from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.engine.launch import ConciseRunner
from mmhiper.models import StableDiffusion
from mmhiper.models.loading import choose_backbone
from mmhiper.utils import devices, register_all_modules
from mmhiper.utils.devices import (
    accelerator,
    best_device,
    computes_in,
    has_float64,
    memory_of,
    size_of_weights,
    usable_dtype,
)

MIB = 2**20


@pytest.fixture
def offer(monkeypatch):
    """Has PyTorch offer a device of some kind, or none."""

    def offers(kind, memory=None, available=True):
        monkeypatch.setattr('torch.cuda.is_available', lambda: False)
        monkeypatch.setattr(
            'torch.accelerator.is_available', lambda: kind is not None
        )
        monkeypatch.setattr(
            'torch.accelerator.current_accelerator',
            lambda: kind and torch.device(kind),
        )
        if kind in ('mps', 'xpu'):
            traits = types.SimpleNamespace(total_memory=memory)
            module = types.SimpleNamespace(
                is_available=lambda: available,
                get_device_properties=lambda number: traits,
            )
            if kind == 'mps':
                module.recommended_max_memory = lambda: memory
            monkeypatch.setattr(torch, kind, module)

    return offers


@pytest.mark.parametrize('kind', ['mps', 'xpu', 'meta'])
def test_any_accelerator_is_taken(offer, kind):
    offer(kind)
    assert accelerator() == best_device() == torch.device(kind)
    assert choose_backbone('owner/large', 'mini-sd') == 'owner/large'


def test_no_accelerator(offer, monkeypatch):
    offer(None)
    assert accelerator() is None and best_device() == torch.device('cpu')
    assert choose_backbone('owner/large', 'mini-sd') == 'mini-sd'
    assert choose_backbone('owner/large', None) == 'owner/large'
    offer('xpu', available=False)  # built with it, on a machine without
    assert best_device() == torch.device('cpu')
    offer('cuda')  # as it says without its driver
    assert best_device() == torch.device('cpu')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    assert best_device() == torch.device('cuda')


@pytest.mark.parametrize('kind', ['mps', 'xpu'])
def test_an_accelerator_that_cannot_hold_the_weights(
    offer, kind, tiny_sd1, capsys
):
    size = size_of_weights(str(tiny_sd1))
    parts = ('unet', 'vae', 'text_encoder')
    files = [next((tiny_sd1 / part).glob('*.safetensors')) for part in parts]
    assert size == sum(file.stat().st_size for file in files)

    offer(kind, size - 1)
    assert memory_of(torch.device(kind)) == size - 1
    assert choose_backbone(str(tiny_sd1), 'mini-sd') == 'mini-sd'
    assert choose_backbone(str(tiny_sd1), None) == str(tiny_sd1)
    offer(kind, size)
    assert choose_backbone(str(tiny_sd1), 'mini-sd') == str(tiny_sd1)


def test_a_part_counts_the_smallest_of_its_files(tiny_sd1, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    size = size_of_weights(str(folder))
    (folder / 'unet' / 'diffusion_pytorch_model.bin').write_bytes(b'x' * MIB)
    assert size_of_weights(str(folder)) == size
    (file,) = (folder / 'vae').glob('*.safetensors')
    (folder / 'vae' / 'model.fp16.safetensors').write_bytes(b'x' * 7)
    assert size_of_weights(str(folder)) == size - file.stat().st_size + 7
    assert size_of_weights(str(file)) == file.stat().st_size
    assert size_of_weights('owner/large') is None


def test_editors_go_where_it_is(offer, tiny_sd1, tmp_path):
    editor = make_hiper(tiny_sd1, n_hiper=5)
    path = tmp_path / 'hiper.pth'
    torch.save(dict(state_dict=editor.state_dict()), path)
    cfg = config(tmp_path, tiny_sd1)
    register_all_modules()
    offer('meta')

    there = load_editor(cfg, path)
    assert there.sd.device == there.embedding.tail.device == best_device()
    assert load_editor(cfg, path, device='cpu').sd.device.type == 'cpu'
    runner = ConciseRunner.from_cfg(cfg)
    assert editor_of(runner).sd.device == torch.device('meta')
    assert editor_of(runner).data_preprocessor.device == torch.device('meta')


def test_a_precision_that_the_device_does_not_have(
    offer, tiny_sd1, monkeypatch
):
    asked = dict(pretrained=str(tiny_sd1), dtype='bf16')
    offer(None)
    # a processor that has it, and one that would emulate it
    for name, wanted in (
        ('amx_bf16', torch.bfloat16),
        ('avx512_f', torch.float32),
    ):
        monkeypatch.setattr(devices, '_capabilities', lambda n=name: {n: True})
        assert StableDiffusion(**asked).dtype == wanted
    assert usable_dtype(torch.float16) == torch.float16
    # a device of which PyTorch here has no kernels: it computes in nothing
    offer('xpu')
    assert not computes_in(torch.bfloat16, torch.device('xpu'))
    assert usable_dtype(torch.bfloat16) == torch.float32
    sd = StableDiffusion(**asked)
    assert sd.dtype == torch.float32
    assert sd.given_arguments()['dtype'] == 'bf16'  # what was asked for
    assert usable_dtype(torch.float32) == torch.float32


def test_double_precision_is_tried():
    assert has_float64(torch.device('cpu')) and has_float64(
        torch.device('meta')
    )
    if not (hasattr(torch, 'xpu') and torch.xpu.is_available()):
        assert not has_float64(torch.device('xpu'))
