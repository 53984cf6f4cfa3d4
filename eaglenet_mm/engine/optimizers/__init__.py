"""The optimiser of the recipe, its wrapper and its parameter groups."""

from .autocast_optim_wrapper import AutocastOptimWrapper
from .bert_adam import BertAdam
from .pattern_constructor import PatternOptimWrapperConstructor

__all__ = [
    'AutocastOptimWrapper',
    'BertAdam',
    'PatternOptimWrapperConstructor',
]
