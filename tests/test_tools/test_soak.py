"""Damaged files are told in one line, by every reader."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readers import Reader, all_readers

NAMES = [
    'picture',
    'mask',
    'concept folder',
    'picture record',
    'preview sheet',
    'table of cases',
    'templates',
    'caption',
    'config in YAML',
    'last_checkpoint',
    'PIE-Bench',
    'TEdBench',
    'DreamBench',
    'embedding, diffusers',
    'embedding, a1111',
    'embedding, kohya',
    'embedding, original',
    'embedding, mmagic',
    'embedding, export',
    'export',
    'checkpoint',
    'checkpoint to resume',
    'mmhiper info',
    'backbone index',
    'backbone scheduler',
    'backbone tokenizer',
    'guidance',
    'image encoder config',
]


@pytest.fixture(scope='module')
def readers(tmp_path_factory) -> dict[str, Reader]:
    """All readers by their names."""
    folder = tmp_path_factory.mktemp('seeds')
    return {reader.name: reader for reader in all_readers(folder)}


@pytest.fixture(autouse=True)
def silent():
    """Hides what libraries log about odd files."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_all_readers_are_tried(readers):
    assert list(readers) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_a_sound_file_is_read(readers, tmp_path, name):
    reader = readers[name]

    assert reader.outcome(tmp_path / reader.file, reader.seeds[0]) == 'read'


@pytest.mark.parametrize('name', NAMES)
def test_a_damaged_file_is_read_or_refused(readers, tmp_path, name):
    reader = readers[name]
    path = tmp_path / reader.file

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def check(random):
        # raises where a reader raises anything but a UserError
        assert reader.outcome(path, reader.damaged(random)) in (
            'read',
            'refused',
        )

    check()
