"""The evaluation loops."""

from eaglenet_mm.engine.loops.retrieval_loop import (
    RetrievalTestLoop,
    RetrievalValLoop,
)

__all__ = ['RetrievalTestLoop', 'RetrievalValLoop']
