"""Heads: one method, one file."""

from eaglenet_mm.models.heads.base_pair_head import (
    BasePairHead,
    PairDropoutHead,
    PairExplanation,
    SeededHead,
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.models.heads.cross_transformer_head import (
    CrossTransformerHead,
)
from eaglenet_mm.models.heads.eaglenet_head import EagleNetHead
from eaglenet_mm.models.heads.mean_pooling_head import MeanPoolingHead
from eaglenet_mm.models.heads.t_mass_head import TMASSHead
from eaglenet_mm.models.heads.text_proxy_head import TextProxyHead
from eaglenet_mm.models.heads.ts2_net_head import TS2NetHead
from eaglenet_mm.models.heads.wti_head import WTIHead
from eaglenet_mm.models.heads.x_pool_head import XPoolHead

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
