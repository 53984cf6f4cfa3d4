"""Heads: one method, one file."""

from .base_pair_head import (
    BasePairHead,
    PairExplanation,
    mean_of_unit_frames,
    unit_sentences,
)
from .cross_transformer_head import CrossTransformerHead
from .eaglenet_head import EagleNetHead
from .mean_pooling_head import MeanPoolingHead
from .seeded_head import PairDropoutHead, SeededHead
from .t_mass_head import TMASSHead
from .text_proxy_head import TextProxyHead
from .ts2_net_head import TS2NetHead
from .wti_head import WTIHead
from .x_pool_head import XPoolHead

__all__ = [
    'BasePairHead',
    'CrossTransformerHead',
    'EagleNetHead',
    'MeanPoolingHead',
    'PairDropoutHead',
    'PairExplanation',
    'SeededHead',
    'TMASSHead',
    'TS2NetHead',
    'TextProxyHead',
    'WTIHead',
    'XPoolHead',
    'mean_of_unit_frames',
    'unit_sentences',
]
