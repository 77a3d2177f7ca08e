"""Hooks, file backend and the start of a run."""

from .atomic_backend import AtomicLocalBackend, atomic_path
from .hooks import (
    ExportHook,
    NextStepsHook,
    PlainCheckpointHook,
    PreviewHook,
    ProgressBarHook,
)

__all__ = [
    'AtomicLocalBackend',
    'ExportHook',
    'NextStepsHook',
    'PlainCheckpointHook',
    'PreviewHook',
    'ProgressBarHook',
    'atomic_path',
]
