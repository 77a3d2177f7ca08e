"""The file backend of checkpoints: complete or not there."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from typing_extensions import override

from mmhiper.utils.atomic import atomic_path


@register_backend('mmhiper_atomic', force=True)
class AtomicLocalBackend(LocalBackend):
    """mmengine's local file backend with a ``put`` that is all or nothing.

    Named in a config by
    ``CheckpointHook(backend_args=dict(backend='mmhiper_atomic'))``.
    """

    @override
    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file in one step."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(filepath) as temporary:
            temporary.write_bytes(obj)
