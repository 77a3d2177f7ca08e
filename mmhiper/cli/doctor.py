"""Examine this machine: versions, devices, memory, the backbone, folders."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import torch
from packaging.requirements import Requirement
from torch.nn.functional import scaled_dot_product_attention

from mmhiper.models.backbones import StableDiffusion
from mmhiper.models.drawing import draw_latents
from mmhiper.models.guidance import NONE, Guidance
from mmhiper.utils.shipped import shipped
from mmhiper.utils.units import plain_size, plain_time
from mmhiper.version import __version__

EXAMPLE = """\
  mmhiper doctor
  mmhiper doctor --pretrained CompVis/stable-diffusion-v1-4"""

OK, NOTE, PROBLEM = 'ok', 'note', 'PROBLEM'


@dataclass(frozen=True)
class Finding:
    """What one look has shown.

    Attributes:
        kind (str): 'ok', 'note' or 'PROBLEM'.
        words (str): What was found.
        remedy (str): What to do about it, '' for nothing.
    """

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
        'Versions': look_at_versions,
        'Devices and memory': look_at_devices,
        'What the stack can do': look_at_stack,
        'Folders': look_at_folders,
        f'Backbone {args.pretrained}': lambda: look_at_backbone(
            args.pretrained
        ),
    }
    problems = 0
    for title, look in looks.items():
        print(title, flush=True)
        for finding in guarded(look):
            problems += finding.kind == PROBLEM
            print(f'  {finding.kind:8s} {finding.words}')
            if finding.remedy:
                print(f'           -> {finding.remedy}', flush=True)
    print(f'{problems} problem(s) found.' if problems else 'All is well.')
    return int(problems > 0)


def guarded(look: Callable[[], Findings]) -> Findings:
    """The findings of a look; an error in it is one more.

    Args:
        look (callable): Without arguments.

    Yields:
        Finding: One by one.
    """
    try:
        yield from look()
    except Exception as error:
        yield Finding(
            PROBLEM,
            f'{type(error).__name__}: {error}',
            'Not foreseen. Please report it with all that stands here.',
        )


# ------------------------------------------------------------------ versions
def look_at_versions() -> Findings:
    """This package, Python, and each requirement."""
    yield Finding(OK, f'mmhiper {__version__}')
    yield Finding(
        OK, f'Python {platform.python_version()}, {platform.platform()}'
    )
    for requirement in requirements():
        yield look_at_requirement(requirement)


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
    """Whether a package is there, new enough and can be imported.

    Args:
        requirement (Requirement): Name and versions.

    Returns:
        Finding: One.
    """
    remedy = f'pip install "{requirement}"'
    name = requirement.name
    # the compiled mmcv has all that mmcv-lite has
    names = ['mmcv', name] if name == 'mmcv-lite' else [name]
    for name in names:
        try:
            version = metadata.version(name)
            break
        except metadata.PackageNotFoundError:
            continue
    else:
        return Finding(PROBLEM, f'{requirement} is not installed.', remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(
            PROBLEM, f'{name} {version} is there, not {requirement}.', remedy
        )
    others = {'mmcv-lite': 'mmcv', 'pillow': 'PIL', 'pyyaml': 'yaml'}
    module = others.get(name, name)
    try:
        importlib.import_module(module)
    except Exception as error:
        return Finding(
            PROBLEM,
            f'{name} {version} cannot be imported: {error}',
            f'pip install --force-reinstall "{requirement}"',
        )
    return Finding(OK, f'{name} {version}')


# ------------------------------------------------------------------- devices
def look_at_devices() -> Findings:
    """CPU, main memory, CUDA devices."""
    cores = len(os.sched_getaffinity(0)) if _is_linux() else os.cpu_count()
    yield Finding(
        OK, f'CPU: {cores} core(s), torch uses {torch.get_num_threads()}'
    )
    if _is_linux():
        free, total = (
            os.sysconf(name) * os.sysconf('SC_PAGE_SIZE')
            for name in ('SC_AVPHYS_PAGES', 'SC_PHYS_PAGES')
        )
        yield Finding(
            OK, f'memory: {plain_size(free)} free of {plain_size(total)}'
        )
    for number in range(torch.cuda.device_count()):
        traits = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield Finding(
            OK,
            f'CUDA device {number}: {traits.name}, {plain_size(free)} free of '
            f'{plain_size(total)}, capability {traits.major}.{traits.minor}',
        )
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


def _is_linux() -> bool:
    return platform.system() == 'Linux'


def device() -> torch.device:
    """Where this package would run."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


# --------------------------------------------------------------------- stack
def look_at_stack() -> Findings:
    """What is used where it is there; each is tried."""
    states = torch.randn(1, 2, 4, 8, device=device())
    scaled_dot_product_attention(states, states, states)
    yield Finding(OK, f'scaled_dot_product_attention on {device()}')
    yield from tried('bfloat16', _multiply_bf16, "Use dtype='fp32'.")
    yield from tried(
        'torch.compile',
        _compile,
        'Not needed. It wants a C++ compiler, on CUDA also triton.',
    )
    compiled = util.find_spec('mmcv._ext') is not None
    yield Finding(
        OK, 'mmcv with compiled operators' if compiled else 'mmcv-lite'
    )
    for name, use in (
        ('tensorboard', 'curves and previews in TensorBoard'),
        ('wandb', 'curves and previews in Weights & Biases'),
        ('pillow-heif', 'HEIC pictures, as of iPhones'),
    ):
        if util.find_spec(name.replace('-', '_')):
            yield Finding(OK, f'{name} {metadata.version(name)}')
        else:
            yield Finding(
                NOTE,
                f'{name} is not installed, which is optional.',
                f'pip install {name}, for {use}',
            )


def tried(name: str, trial: Callable[[], None], remedy: str) -> Findings:
    """Tries something that is nice to have.

    Args:
        name (str): What.
        trial (callable): Raises if it does not work.
        remedy (str): What to do then.

    Yields:
        Finding: One.
    """
    try:
        trial()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        yield Finding(NOTE, f'{name} does not work here: {reason}', remedy)
    else:
        yield Finding(OK, f'{name} on {device()}')


def _multiply_bf16() -> None:
    matrix = torch.ones(8, 8, dtype=torch.bfloat16, device=device())
    if (matrix @ matrix)[0, 0] != 8:
        raise ArithmeticError('the product of two matrices is wrong')


def _compile() -> None:
    compiled = torch.compile(lambda x: (2 * x + 1).sum())
    if compiled(torch.ones(4, device=device())) != 12:
        raise ArithmeticError('the result of a compiled function is wrong')


# ------------------------------------------------------------------- folders
def look_at_folders() -> Findings:
    """Where results and downloads go."""
    yield look_at_folder(
        'current folder', Path.cwd(), 'Name another one with --work-dir or '
        '--out-dir.',
    )  # fmt: skip
    from huggingface_hub import constants

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
    """Whether a folder can be written, and how much room it has.

    Args:
        name (str): What it is.
        folder (Path): It need not exist.
        remedy (str): What to do if it cannot be written.

    Returns:
        Finding: One.
    """
    existing = next(
        each for each in (folder, *folder.parents) if each.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(
            PROBLEM,
            f'{name}: cannot write to {folder}: {error.strerror}',
            remedy,
        )
    room = plain_size(shutil.disk_usage(existing).free)
    return Finding(OK, f'{name}: {folder}, {room} free')


# ------------------------------------------------------------------ backbone
def look_at_backbone(pretrained: str) -> Findings:
    """Loads a backbone and draws a picture in one step.

    Args:
        pretrained (str): See ``StableDiffusion``.

    Yields:
        Finding: What is there, and how long a step takes.
    """
    start = time.monotonic()
    try:
        sd = StableDiffusion(pretrained).to(device())
    except (ValueError, OSError) as error:
        # which says what to do
        yield Finding(PROBLEM, f'It cannot be loaded: {error}')
        return
    weights = sum(each.nbytes for each in sd.parameters())
    yield Finding(
        OK,
        f'loaded in {plain_time(time.monotonic() - start)}: '
        f'{plain_size(weights)} of weights, pictures of {sd.image_size} '
        'pixels',
    )
    start = time.monotonic()
    text = sd.encode_text(['a dog'])
    latents = draw_latents(sd, text, Guidance(NONE), num_inference_steps=1)
    picture = sd.decode(latents)  # not clamped, which would hide infinity
    if not picture.isfinite().all():
        yield Finding(
            PROBLEM,
            'What it draws has values that are not finite.',
            "Its files are damaged, or `dtype` is too small for it: 'bf16' "
            "where 'fp16' fails.",
        )
        return
    yield Finding(
        OK,
        f'drew {picture.shape[-1]} x {picture.shape[-2]} pixels in one step, '
        f'in {plain_time(time.monotonic() - start)}',
    )
