"""Loops, hooks, optimisers and schedules for MMEngine's Runner."""

from .hooks import (
    ContrastiveBatchHook,
    DatasetEpochHook,
    LogitScaleClampHook,
)
from .loops import RetrievalTestLoop, RetrievalValLoop
from .optimizers import (
    AutocastOptimWrapper,
    BertAdam,
    PatternOptimWrapperConstructor,
)
from .schedulers import WarmupCosineLR

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
