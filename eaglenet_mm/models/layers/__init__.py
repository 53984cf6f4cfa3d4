"""Parts of heads, each with a contract of its own."""

from .frame_pooling import FramePooling, PooledFramesState
from .graph_attention import AttentionProjection
from .graphs import build_graph
from .keyed_random import KeyedRandom, PairRandom
from .plain_graph import PlainGraph
from .relational_graph import RelationalGraph
from .relational_layer import RelationalGraphLayer
from .stochastic_text import StochasticText
from .workspace import Workspace

__all__ = [
    'AttentionProjection',
    'FramePooling',
    'KeyedRandom',
    'PairRandom',
    'PlainGraph',
    'PooledFramesState',
    'RelationalGraph',
    'RelationalGraphLayer',
    'StochasticText',
    'Workspace',
    'build_graph',
]
