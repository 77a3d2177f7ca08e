"""What the tests share: tiny models, written once per session."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

# nothing here needs the network, and a hub id should fail at once
os.environ['HF_HUB_OFFLINE'] = '1'

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import build_tiny_folder


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> None:
    """Tiny models run fastest in one thread."""
    torch.set_num_threads(1)


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


@pytest.fixture(params=['sd1', 'sd2', 'sdxl'])
def tiny_folder(request: pytest.FixtureRequest) -> Path:
    """Each family in turn."""
    return request.getfixturevalue(f'tiny_{request.param}')


@pytest.fixture(params=['sd1', 'sd2'])
def tiny_one_text(request: pytest.FixtureRequest) -> Path:
    """Each family with one text encoder."""
    return request.getfixturevalue(f'tiny_{request.param}')


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
