"""Optimiser, optimiser wrapper and parameter groups."""

from eaglenet_mm.engine.optimizers.autocast_optim_wrapper import (
    AutocastOptimWrapper,
)
from eaglenet_mm.engine.optimizers.bert_adam import BertAdam
from eaglenet_mm.engine.optimizers.pattern_constructor import (
    PatternOptimWrapperConstructor,
)

__all__ = [
    'AutocastOptimWrapper',
    'BertAdam',
    'PatternOptimWrapperConstructor',
]
