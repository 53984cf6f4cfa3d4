"""The plain text-frame graph, the variant EagleNet is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.graph_attention import (
    AttentionProjection,
    GraphDropout,
    masked_softmax,
    mean_over_frames,
    pair_logits,
)
from eaglenet_mm.models.layers.relational_graph import (
    RelationalGraph,
    check_graph_sizes,
)
from eaglenet_mm.structures import Features


@dataclass
class PlainFramesState(Features):
    """Values and logits of the frames in one hidden layer.

    Args:
        values (Tensor): Shape ``(..., H, F, O)``.
        left (Tensor): Logits as rows, shape ``(..., F, H)``.
        right (Tensor): Logits as columns, shape ``(..., F, H)``.
    """

    values: Tensor
    left: Tensor
    right: Tensor


class PlainGraphLayer(AttentionProjection):
    """Graph attention over the complete graph of all nodes of a pair.

    Version 1 has logits ``leaky_relu(a_l . h_i + a_r . h_j)``, version 2
    ``a_l . leaky_relu(h_i) + a_r . leaky_relu(h_j)`` as the release computes
    them (this is not the usual GATv2, which keeps the sum inside).

    Args:
        in_width (int): Width of a node.
        head_width (int): Width of a head.
        num_heads (int): Heads.
        negative_slope (float): Of the leaky ReLU.
        version (int): 1 or 2.
    """

    def __init__(
        self,
        in_width: int,
        head_width: int,
        num_heads: int,
        negative_slope: float,
        version: int,
    ) -> None:
        super().__init__(in_width, head_width, num_heads)
        self.inner_slope = negative_slope if version == 2 else 1.0
        self.outer_slope = negative_slope if version == 1 else 1.0

    def node_logits(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of nodes as rows and columns, ``(..., N, H)``."""
        if self.inner_slope == 1.0:
            fold_left, fold_right = self.folded()
            return nodes @ fold_left.T, nodes @ fold_right.T
        return self._logits_of(self.split_heads(self.project(nodes)))

    def _logits_of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        active = F.leaky_relu(values, self.inner_slope)
        return (
            (active @ self.left).transpose(-1, -2),
            (active @ self.right).transpose(-1, -2),
        )

    def prepare(self, nodes: Tensor) -> PlainFramesState:
        """Compute values and logits of nodes ``(..., N, C)``."""
        values = self.split_heads(self.project(nodes))
        if self.inner_slope == 1.0:
            left, right = self.node_logits(nodes)
        else:
            left, right = self._logits_of(values)
        return PlainFramesState(values=values, left=left, right=right)

    def forward(
        self,
        text_nodes: Tensor,
        frames: PlainFramesState,
        frame_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Pass messages between all nodes of each pair.

        Shapes are those of
        :meth:`~eaglenet_mm.models.layers.RelationalGraphLayer.forward`.
        """
        text = self.prepare(text_nodes)
        num_frames = frames.left.shape[-2]
        column_mask = None
        if frame_mask is not None:
            texts = frame_mask.new_ones(
                *frame_mask.shape[:-1], text_nodes.shape[-2]
            )
            column_mask = torch.cat([frame_mask, texts], dim=-1)

        def receive(left: Tensor) -> Tensor:
            logits = torch.cat(
                [
                    pair_logits(left, frames.right, self.outer_slope).expand(
                        *text.left.shape[:2], -1, -1, -1
                    ),
                    pair_logits(left, text.right, self.outer_slope),
                ],
                dim=-1,
            )
            weights = masked_softmax(logits, column_mask)
            out = (
                weights[..., :num_frames] @ frames.values
                + weights[..., num_frames:] @ text.values
            )
            return out.transpose(-2, -3).flatten(-2)

        return receive(text.left), receive(frames.left)


class PlainGraph(nn.Module):
    """Weights of the text candidates from a graph without relations.

    One relation over the complete graph of all nodes, GAT or GATv2; the
    ablation of the relational graph in `EagleNet
    <https://arxiv.org/abs/2603.25267>`_. Same interface as
    :class:`~eaglenet_mm.models.layers.RelationalGraph`.

    Args:
        width (int): Width ``D`` of the nodes.
        num_layers (int): Layers, the last included. Default: 2.
        num_heads (int): Heads. Default: 4.
        dropout (float): Rate behind each hidden layer. Default: 0.5.
        negative_slope (float): Of the leaky ReLU. Default: 0.1.
        version (int): 1 for GAT, 2 for the release's GATv2. Default: 1.

    Raises:
        ValueError: If sizes do not fit or ``version`` is neither 1 nor 2.
    """

    hidden: Any  # nn.ModuleList forgets what class its modules have

    def __init__(
        self,
        width: int,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.5,
        negative_slope: float = 0.1,
        version: int = 1,
    ) -> None:
        super().__init__()
        check_graph_sizes(width, num_layers, num_heads)
        if version not in (1, 2):
            raise ValueError(f'version must be 1 or 2, but is {version}.')
        self.dropout = dropout
        self.hidden = nn.ModuleList(
            PlainGraphLayer(
                width, width // num_heads, num_heads, negative_slope, version
            )
            for _ in range(num_layers - 1)
        )
        self.last = PlainGraphLayer(
            width, width, num_heads, negative_slope, version
        )

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> PlainFramesState | None:
        """Compute the video side of the first hidden layer, if any."""
        if not self.hidden:
            return None
        return self.hidden[0].prepare(frames)

    def forward(
        self,
        text_nodes: Tensor,
        frames: Tensor,
        state: PlainFramesState | None,
        frame_mask: Tensor | None = None,
        dropout: GraphDropout | None = None,
    ) -> Tensor:
        """Compute the logits of the candidates, shape ``(Bt, Bv, T)``.

        Arguments as those of the relational graph.
        """
        for index, layer in enumerate(self.hidden):
            if index > 0:
                state = layer.prepare(frames)
            text_nodes, frames = layer(text_nodes, state, frame_mask)
            text_nodes, frames = text_nodes.relu(), frames.relu()
            if dropout is not None:
                text_nodes = dropout(text_nodes, f'graph {index} text')
                frames = dropout(frames, f'graph {index} frames')
        left, _ = self.last.node_logits(frames)
        _, right = self.last.node_logits(text_nodes)
        logits = pair_logits(left, right, self.last.outer_slope)
        return mean_over_frames(logits, frame_mask)


GRAPHS = {'rgat': RelationalGraph, 'gat': PlainGraph}


def build_graph(width: int, **options: Any) -> RelationalGraph | PlainGraph:
    """Build a graph by the name it has in configs.

    Args:
        width (int): Width of the nodes.
        **options: ``type``, ``'rgat'`` with relations (default) or ``'gat'``
            without, and arguments of the class.

    Raises:
        ValueError: If there is no such graph.
    """
    kind = options.pop('type', 'rgat')
    if kind not in GRAPHS:
        raise ValueError(
            f'graph.type must be one of {sorted(GRAPHS)}, but is {kind!r}.'
        )
    return GRAPHS[kind](width, **options)
