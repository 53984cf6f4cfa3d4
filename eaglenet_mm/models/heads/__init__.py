"""Heads: one method, one file."""

from .base_pair_head import BasePairHead
from .eaglenet_head import EagleNetHead
from .mean_pooling_head import MeanPoolingHead

__all__ = ['BasePairHead', 'EagleNetHead', 'MeanPoolingHead']
