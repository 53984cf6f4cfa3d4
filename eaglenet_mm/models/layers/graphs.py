"""The graphs by the names they have in configs."""

from __future__ import annotations

from typing import Any

from eaglenet_mm.models.layers.plain_graph import PlainGraph
from eaglenet_mm.models.layers.relational_graph import RelationalGraph
from eaglenet_mm.utils.type_name import named_class

GRAPHS = {'rgat': RelationalGraph, 'gat': PlainGraph}


def build_graph(width: int, **options: Any) -> RelationalGraph | PlainGraph:
    """Build a graph by the name it has in configs.

    Args:
        width (int): Width of the nodes.
        **options: ``type``, ``'rgat'`` with relations (default) or ``'gat'``
            without, or one of these classes, and arguments of the class.

    Raises:
        ValueError: If there is no such graph.
    """
    kind = named_class(options.pop('type', 'rgat'))
    graph = GRAPHS.get(kind, kind)
    if graph not in GRAPHS.values():
        raise ValueError(
            f'graph.type must be one of {sorted(GRAPHS)}, but is {kind!r}.'
        )
    return graph(width, **options)
