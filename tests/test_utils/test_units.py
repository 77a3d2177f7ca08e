"""Sizes and times in words."""

import pytest

from mmhiper.utils.units import plain_size, plain_time


@pytest.mark.parametrize(
    ('size', 'words'),
    [
        (0, '0 bytes'),
        (999, '999 bytes'),
        (1000, '1.0 KB'),
        (9_960, '10 KB'),
        (999_600, '1.0 MB'),
        (139_000_000_000, '139 GB'),
        (5e15, '5000 TB'),
    ],
)
def test_sizes(size, words):
    assert plain_size(size) == words


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (0.04, '0.0 s'),
        (9.94, '9.9 s'),
        (9.96, '10 s'),
        (59.6, '1 min 0 s'),
        (3599, '59 min 59 s'),
        (3600 * 26 + 61, '26 h 1 min'),
    ],
)
def test_times(seconds, words):
    assert plain_time(seconds) == words
