"""Hooks, file backend and the start of a run."""

from .atomic_backend import AtomicLocalBackend
from .hooks import (
    CurriculumHook,
    ExportHook,
    LazyRuntimeInfoHook,
    LossCurveHook,
    NextStepsHook,
    PlainCheckpointHook,
    PreviewHook,
    ProgressBarHook,
)
from .loops import CurriculumLoop

__all__ = [
    'AtomicLocalBackend',
    'CurriculumHook',
    'CurriculumLoop',
    'ExportHook',
    'LazyRuntimeInfoHook',
    'LossCurveHook',
    'NextStepsHook',
    'PlainCheckpointHook',
    'PreviewHook',
    'ProgressBarHook',
]
