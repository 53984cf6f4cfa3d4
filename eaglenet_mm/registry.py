"""Registries of the plugin, children of MMEngine's root registries.

The scope is ``eaglenet_mm``. A config with ``default_scope = 'eaglenet_mm'``
finds our modules by their bare name, MMEngine's as well, and those of other
libraries with their prefix, for example ``mmaction.ResNet``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

SCOPE = 'eaglenet_mm'


def _child(name: str, parent: Registry, location: str) -> Registry:
    return Registry(
        name,
        parent=parent,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}'],
    )


DATASETS = _child('dataset', MMENGINE_DATASETS, 'datasets')
DATA_SAMPLERS = _child('data sampler', MMENGINE_DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', MMENGINE_TRANSFORMS, 'datasets.transforms')
MODELS = _child('model', MMENGINE_MODELS, 'models')
METRICS = _child('metric', MMENGINE_METRICS, 'evaluation')
LOOPS = _child('loop', MMENGINE_LOOPS, 'engine')
HOOKS = _child('hook', MMENGINE_HOOKS, 'engine')
OPTIMIZERS = _child('optimizer', MMENGINE_OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _child('optim_wrapper', MMENGINE_OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor',
    MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    'engine',
)
PARAM_SCHEDULERS = _child(
    'parameter scheduler', MMENGINE_PARAM_SCHEDULERS, 'engine'
)
# ours hold nothing yet, but MMEngine asks every scope for them
VISBACKENDS = _child('vis_backend', MMENGINE_VISBACKENDS, 'engine')
VISUALIZERS = _child('visualizer', MMENGINE_VISUALIZERS, 'engine')
#: Tokenizers: callables from sentences to token ids.
TOKENIZERS = _child('tokenizer', MMENGINE_TASK_UTILS, 'datasets.transforms')
#: First stages of the search. A root: MMEngine has none that fits, and its
#: registry of utilities takes one child of a scope, which is the one above.
SHORTLISTERS = Registry(
    'shortlister',
    scope=SCOPE,
    locations=[
        f'{SCOPE}.search.{module}'
        for module in ('shortlisters', 'lance_store', 'milvus_shortlister')
    ],
)

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIMIZERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'SCOPE',
    'SHORTLISTERS',
    'TOKENIZERS',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
]
