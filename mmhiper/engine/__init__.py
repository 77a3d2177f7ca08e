"""Hooks, file backend and the start of a run."""

from .atomic_backend import AtomicLocalBackend
from .hooks import (
    AverageHook,
    CheckpointHook,
    CurriculumHook,
    ExportHook,
    FiniteHook,
    InterruptionHook,
    LazyRuntimeInfoHook,
    LossCurveHook,
    NextStepsHook,
    PlainCheckpointHook,
    PlateauHook,
    PreviewHook,
    ProgressBarHook,
    RunHook,
)
from .loops import CurriculumLoop
from .visualizer import LazyVisualizer

__all__ = [
    'AtomicLocalBackend',
    'AverageHook',
    'CheckpointHook',
    'CurriculumHook',
    'CurriculumLoop',
    'ExportHook',
    'FiniteHook',
    'InterruptionHook',
    'LazyRuntimeInfoHook',
    'LazyVisualizer',
    'LossCurveHook',
    'NextStepsHook',
    'PlainCheckpointHook',
    'PlateauHook',
    'PreviewHook',
    'ProgressBarHook',
    'RunHook',
]
