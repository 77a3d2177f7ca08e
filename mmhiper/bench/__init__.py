"""Many editors on one bench: the same cases, model and measures for all."""

from mmhiper.bench.methods import METHODS, Drawing, method_config
from mmhiper.bench.metrics import MetricChoice
from mmhiper.bench.work import Bench

__all__ = ['METHODS', 'Bench', 'Drawing', 'MetricChoice', 'method_config']
