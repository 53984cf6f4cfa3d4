"""Loops, hooks, optimisers and schedules for MMEngine's runners."""

from eaglenet_mm.engine.hooks import (
    ContrastiveBatchHook,
    DatasetEpochHook,
    LogitScaleClampHook,
)
from eaglenet_mm.engine.loops import RetrievalTestLoop, RetrievalValLoop
from eaglenet_mm.engine.optimizers import (
    AutocastOptimWrapper,
    BertAdam,
    PatternOptimWrapperConstructor,
)
from eaglenet_mm.engine.schedulers import WarmupCosineLR

__all__ = [
    'AutocastOptimWrapper',
    'BertAdam',
    'ContrastiveBatchHook',
    'DatasetEpochHook',
    'LogitScaleClampHook',
    'PatternOptimWrapperConstructor',
    'RetrievalTestLoop',
    'RetrievalValLoop',
    'WarmupCosineLR',
]
