"""Child registries of MMEngine's root registries, with scope ``mmhiper``.

Their ``locations`` are imported when a type is first looked up, so importing
this module costs next to nothing. Every root that a config of this package
touches has a child here; without one MMEngine warns ("Failed to search
registry ...") at each lookup.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

SCOPE = 'mmhiper'


def _child(parent: Registry, *locations: str) -> Registry:
    """Creates the child of one root registry."""
    return Registry(
        parent.name, parent=parent, scope=SCOPE, locations=list(locations)
    )


MODELS = _child(MMENGINE_MODELS, 'mmhiper.models')
MODEL_WRAPPERS = _child(MMENGINE_MODEL_WRAPPERS)
DATASETS = _child(MMENGINE_DATASETS, 'mmhiper.datasets')
DATA_SAMPLERS = _child(MMENGINE_DATA_SAMPLERS)
TRANSFORMS = _child(MMENGINE_TRANSFORMS, 'mmhiper.datasets')
HOOKS = _child(MMENGINE_HOOKS, 'mmhiper.engine')
RUNNERS = _child(MMENGINE_RUNNERS)
LOOPS = _child(MMENGINE_LOOPS, 'mmhiper.engine')
LOG_PROCESSORS = _child(MMENGINE_LOG_PROCESSORS)
OPTIMIZERS = _child(MMENGINE_OPTIMIZERS)
OPTIM_WRAPPERS = _child(MMENGINE_OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS)
PARAM_SCHEDULERS = _child(MMENGINE_PARAM_SCHEDULERS)
METRICS = _child(MMENGINE_METRICS, 'mmhiper.evaluation')
EVALUATOR = _child(MMENGINE_EVALUATOR)
FUNCTIONS = _child(MMENGINE_FUNCTIONS)
VISUALIZERS = _child(MMENGINE_VISUALIZERS, 'mmhiper.engine')
VISBACKENDS = _child(MMENGINE_VISBACKENDS)
