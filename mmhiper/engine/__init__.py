"""Hooks, file backend and the start of a run."""

from .atomic_backend import AtomicLocalBackend
from .hooks import (
    CheckpointHook,
    CurriculumHook,
    ExportHook,
    FiniteHook,
    InterruptionHook,
    LazyRuntimeInfoHook,
    LossCurveHook,
    NextStepsHook,
    PlainCheckpointHook,
    PreviewHook,
    ProgressBarHook,
    RunHook,
)
from .loops import CurriculumLoop

__all__ = [
    'AtomicLocalBackend',
    'CheckpointHook',
    'CurriculumHook',
    'CurriculumLoop',
    'ExportHook',
    'FiniteHook',
    'InterruptionHook',
    'LazyRuntimeInfoHook',
    'LossCurveHook',
    'NextStepsHook',
    'PlainCheckpointHook',
    'PreviewHook',
    'ProgressBarHook',
    'RunHook',
]
