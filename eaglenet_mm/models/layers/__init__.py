"""Building blocks of heads."""

from eaglenet_mm.models.layers.fine_grained_relationships import (
    FineGrainedRelationships,
    build_graph,
)
from eaglenet_mm.models.layers.frame_pooling import (
    FramePooling,
    PooledFramesState,
)
from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom
from eaglenet_mm.models.layers.plain_graph import PlainGraph
from eaglenet_mm.models.layers.relational_graph import (
    AttentionProjection,
    RelationalGraph,
    RelationalGraphLayer,
)
from eaglenet_mm.models.layers.relational_messages import Workspace
from eaglenet_mm.models.layers.stochastic_text import StochasticText

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
