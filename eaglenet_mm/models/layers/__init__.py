"""Parts of heads, each with a contract of its own."""

from .frame_pooling import FramePooling, PooledFramesState
from .graph_attention import AttentionProjection, GraphDropout
from .keyed_random import KeyedRandom
from .plain_graph import PlainGraph, build_graph
from .relational_graph import RelationalGraph, RelationalGraphLayer
from .stochastic_text import StochasticText

__all__ = [
    'AttentionProjection',
    'FramePooling',
    'GraphDropout',
    'KeyedRandom',
    'PlainGraph',
    'PooledFramesState',
    'RelationalGraph',
    'RelationalGraphLayer',
    'StochasticText',
    'build_graph',
]
