"""Parts of heads, each with a contract of its own."""

from .fine_grained_relationships import FineGrainedRelationships, build_graph
from .frame_pooling import FramePooling, PooledFramesState
from .keyed_random import KeyedRandom, PairRandom
from .plain_graph import PlainGraph
from .relational_graph import (
    AttentionProjection,
    RelationalGraph,
    RelationalGraphLayer,
)
from .relational_messages import Workspace
from .stochastic_text import StochasticText

__all__ = [
    'AttentionProjection',
    'FineGrainedRelationships',
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
