"""Evaluation loops."""

from eaglenet_mm.engine.loops.retrieval_evaluation import (
    RetrievalTestLoop,
    RetrievalValLoop,
)

__all__ = ['RetrievalTestLoop', 'RetrievalValLoop']
