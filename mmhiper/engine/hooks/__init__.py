"""Hooks: curriculum, averages, previews, checkpoints, cards, last words."""

from .average_hook import AverageHook
from .card_hook import CardHook
from .checkpoint_hook import CheckpointHook
from .curriculum_hook import CurriculumHook
from .editor_of import config_of
from .export_hook import ExportHook
from .finite_hook import FiniteHook
from .interruption_hook import InterruptionHook
from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .learned_hook import LearnedHook
from .loss_curve_hook import LossCurveHook
from .next_steps_hook import NextStepsHook
from .plain_checkpoint_hook import PlainCheckpointHook, to_plain
from .plateau_hook import PlateauHook
from .preview_hook import PreviewHook
from .progress_bar_hook import ProgressBarHook
from .run_hook import RunHook

__all__ = [
    'AverageHook',
    'CardHook',
    'CheckpointHook',
    'CurriculumHook',
    'ExportHook',
    'FiniteHook',
    'InterruptionHook',
    'LazyRuntimeInfoHook',
    'LearnedHook',
    'LossCurveHook',
    'NextStepsHook',
    'PlainCheckpointHook',
    'PlateauHook',
    'PreviewHook',
    'ProgressBarHook',
    'RunHook',
    'config_of',
    'to_plain',
]
