"""Hooks: curriculum, previews, curves, checkpoints, exports, last words."""

from .curriculum_hook import CurriculumHook
from .export_hook import ExportHook
from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .loss_curve_hook import LossCurveHook
from .next_steps_hook import NextStepsHook
from .plain_checkpoint_hook import PlainCheckpointHook, to_plain
from .preview_hook import PreviewHook
from .progress_bar_hook import ProgressBarHook

__all__ = [
    'CurriculumHook',
    'ExportHook',
    'LazyRuntimeInfoHook',
    'LossCurveHook',
    'NextStepsHook',
    'PlainCheckpointHook',
    'PreviewHook',
    'ProgressBarHook',
    'to_plain',
]
