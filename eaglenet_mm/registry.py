"""Registries of this package, children of MMEngine's root registries.

The scope is ``eaglenet_mm``. A config with ``default_scope = 'eaglenet_mm'``
finds classes of this package and MMEngine by their bare name, and those of
other libraries with a prefix, for example ``mmaction.ResNet``.
"""

from mmengine import registry as mmengine
from mmengine.registry import Registry

SCOPE = 'eaglenet_mm'


def _child(name: str, parent: Registry, location: str) -> Registry:
    return Registry(
        name,
        parent=parent,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}'],
    )


DATASETS = _child('dataset', mmengine.DATASETS, 'datasets')
DATA_SAMPLERS = _child('data sampler', mmengine.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', mmengine.TRANSFORMS, 'datasets.transforms')
MODELS = _child('model', mmengine.MODELS, 'models')
METRICS = _child('metric', mmengine.METRICS, 'evaluation')
LOOPS = _child('loop', mmengine.LOOPS, 'engine')
HOOKS = _child('hook', mmengine.HOOKS, 'engine')
OPTIMIZERS = _child('optimizer', mmengine.OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _child('optim_wrapper', mmengine.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor',
    mmengine.OPTIM_WRAPPER_CONSTRUCTORS,
    'engine',
)
PARAM_SCHEDULERS = _child(
    'parameter scheduler', mmengine.PARAM_SCHEDULERS, 'engine'
)
# empty, but MMEngine looks them up in every scope
VISBACKENDS = _child('vis_backend', mmengine.VISBACKENDS, 'engine')
VISUALIZERS = _child('visualizer', mmengine.VISUALIZERS, 'engine')
#: Tokenizers: callables from sentences to token ids.
TOKENIZERS = _child('tokenizer', mmengine.TASK_UTILS, 'datasets.transforms')
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
