"""Hooks, file backend and the start of a run."""

from .atomic_backend import AtomicLocalBackend
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
]
