"""What the tests share: processes, threads, tiny models."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

# Nothing here needs the network, and a hub id should fail at once.
os.environ['HF_HUB_OFFLINE'] = '1'
# Read when torch is loaded, here and in every process that a test starts. Tiny
# models run fastest in one thread.
os.environ.setdefault('OMP_NUM_THREADS', '1')

from mmhiper.threads import bound_spin

bound_spin()

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import build_tiny_folder, build_tiny_ldm, build_tiny_sd3
from tolerances import float64 as in_float64

MOST_WORKERS = 4  # each holds a PyTorch of its own in memory


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Runs folders on several cores, and files that are named in one process.

    So what a developer looks at closely (``path -x``, ``--pdb``, ``-s``) is
    one plain process. ``-n`` decides in place of this.
    """
    options = config.option
    closely = options.usepdb or options.trace or options.capture == 'no'
    if (
        not config.pluginmanager.hasplugin('xdist')
        or hasattr(config, 'workerinput')  # a worker starts no others
        or options.numprocesses is not None
        or closely
        or not all(Path(name).is_dir() for name in config.args)
    ):
        return
    workers = min(_cores(), MOST_WORKERS)
    if workers > 1:
        options.numprocesses = workers
        # keeps what shares a fixture together, and no worker idle
        options.dist = 'worksteal'


def _cores() -> int:
    """What this process may use, which may be less than there is."""
    if hasattr(os, 'sched_getaffinity'):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@pytest.fixture(scope='session')
def tiny_sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the SD 1.x family (predicts noise)."""
    return build_tiny_folder('sd1', tmp_path_factory.mktemp('sd1'))


@pytest.fixture(scope='session')
def tiny_sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the SD 2.x family (wider, predicts velocity)."""
    return build_tiny_folder('sd2', tmp_path_factory.mktemp('sd2'))


@pytest.fixture(scope='session')
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the SDXL family (two text encoders)."""
    return build_tiny_folder('sdxl', tmp_path_factory.mktemp('sdxl'))


@pytest.fixture(scope='session')
def tiny_ldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-to-image model of latent diffusion (BERT)."""
    return build_tiny_ldm(tmp_path_factory.mktemp('ldm'))


@pytest.fixture(scope='session')
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 3 (flow matching, three text encoders)."""
    return build_tiny_sd3(tmp_path_factory.mktemp('sd3'), dual=False)


@pytest.fixture(scope='session')
def tiny_sd35(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 3.5 medium."""
    return build_tiny_sd3(tmp_path_factory.mktemp('sd35'), dual=True)


@pytest.fixture(params=['sd1', 'sd2', 'sdxl'])
def tiny_folder(request: pytest.FixtureRequest) -> Path:
    """Each family in turn."""
    return request.getfixturevalue(f'tiny_{request.param}')


@pytest.fixture(params=['sd1', 'sd2'])
def tiny_one_text(request: pytest.FixtureRequest) -> Path:
    """Each family with one text encoder."""
    return request.getfixturevalue(f'tiny_{request.param}')


@pytest.fixture
def float64(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test whose numbers are all of double precision."""
    # the folders themselves hold single precision, as published ones do
    for name in (
        'tiny_sd1',
        'tiny_sd2',
        'tiny_sdxl',
        'tiny_ldm',
        'tiny_sd3',
        'tiny_sd35',
    ):
        request.getfixturevalue(name)
    with in_float64():
        yield


@pytest.fixture
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bf16, so that a model of it is one on any machine."""
    monkeypatch.setattr(
        'mmhiper.utils.devices._capabilities', lambda: {'bf16': True}
    )


@pytest.fixture
def untouched_global_generators() -> Iterator[None]:
    """Fails if the test draws from a global generator or reseeds it."""

    def states() -> tuple:
        numpy = np.random.get_state()  # noqa: NPY002  the global one is meant
        words = numpy[1].tolist(), *numpy[2:]
        return random.getstate(), words, torch.get_rng_state().tolist()

    before = states()
    yield
    assert states() == before
