"""Files that are either complete or not there."""

import os

import pytest

from mmhiper.utils.atomic import atomic_path


def test_interrupted_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')

    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text('half of the n')
        raise KeyboardInterrupt

    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']
