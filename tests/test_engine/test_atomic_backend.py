"""Files that are either complete or not there."""

import os

import pytest
from mmengine.fileio import get_file_backend

from mmhiper.engine import AtomicLocalBackend, atomic_path


def test_backend_is_found_by_its_name(tmp_path):
    backend = get_file_backend(
        backend_args=dict(backend='mmhiper_atomic'), enable_singleton=False
    )
    assert isinstance(backend, AtomicLocalBackend)

    backend.put(b'content', tmp_path / 'folder' / 'file')

    assert (tmp_path / 'folder' / 'file').read_bytes() == b'content'
    assert os.listdir(tmp_path / 'folder') == ['file']


def test_interrupted_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')

    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text('half of the n')
        raise KeyboardInterrupt

    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']
