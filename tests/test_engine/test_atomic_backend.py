"""The file backend that checkpoints are written through."""

import os

from mmengine.fileio import get_file_backend

from mmhiper.engine import AtomicLocalBackend


def test_backend_is_found_by_its_name(tmp_path):
    backend = get_file_backend(
        backend_args=dict(backend='mmhiper_atomic'), enable_singleton=False
    )
    assert isinstance(backend, AtomicLocalBackend)

    backend.put(b'content', tmp_path / 'folder' / 'file')

    assert (tmp_path / 'folder' / 'file').read_bytes() == b'content'
    assert os.listdir(tmp_path / 'folder') == ['file']
