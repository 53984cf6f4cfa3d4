"""The plain text-frame graph, the variant EagleNet is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.graph_attention import (
    AttentionProjection,
    check_dropout,
    masked_softmax,
    mean_over_frames,
    pad_sentence,
    pair_logits,
)
from eaglenet_mm.models.layers.keyed_random import PairRandom
from eaglenet_mm.models.layers.message_products import displace
from eaglenet_mm.models.layers.relational_graph import (
    LastLogits,
    check_graph_sizes,
)
from eaglenet_mm.models.layers.workspace import Workspace
from eaglenet_mm.structures import EmbedsState, Features


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

        Args:
            text_nodes (Tensor): Shape ``(Bv, Bt, T, D)``.
            frames (PlainFramesState): Leading axes that broadcast with
                ``(Bv, Bt)``.
            frame_mask (Tensor, optional): Likewise, ``(..., F)``.

        Returns:
            tuple[Tensor, Tensor]: New text nodes ``(Bv, Bt, T, D)`` and frame
            nodes ``(Bv, Bt, F, D)``, before the activation.
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
        check_dropout(dropout)
        if version not in (1, 2):
            raise ValueError(f'version must be 1 or 2, but is {version}.')
        self.dropout = dropout
        self.version = version
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
    ) -> PlainFramesState | LastLogits:
        """Compute the video side of the first layer, of ``(Bv, F, D)``."""
        if not self.hidden:
            return LastLogits(self.last.node_logits(frames)[0])
        return self.hidden[0].prepare(frames)

    def prepare_text(self, text: Tensor) -> EmbedsState:
        """Keep the sentences ``(Bt, D)``: nodes are not split here."""
        return EmbedsState(text)

    def fold(self, num_frames: int, num_candidates: int) -> None:
        """Nothing is made ready for chunks here."""

    def numbers_per_pair(
        self, num_frames: int, num_candidates: int, training: bool
    ) -> float:
        """Count the numbers that the graph of one pair takes.

        Arguments as those of the relational graph.
        """
        width, heads = self.last.project.in_features, self.last.num_heads
        nodes = num_candidates + 1
        wide = float(nodes)  # the displacements
        if self.version == 2:  # needs the values of the last layer, too
            frames = num_frames if self.hidden else 0
            wide += heads * (3 * nodes + 2 * frames)
            wide += 0 if training else 3
        elif not self.hidden and not training:  # attention, or its logits
            logits = 2 * heads * num_frames + heads + 4
            wide += max(2.0 * nodes, 1 + nodes * logits / width)
        layers = len(self.hidden) if training else min(1, len(self.hidden))
        wide += layers * (5 + 2 * (self.version == 2)) * (nodes + num_frames)
        attention = (2 * nodes + num_frames) * (nodes + num_frames) * layers
        if len(self.hidden) > 1 and not training:
            attention += num_frames * (nodes + num_frames)
        logits = (1 + layers) * nodes * num_frames
        return width * wide + heads * (attention + logits)

    def forward(
        self,
        noise: Tensor,
        radius: Tensor | None,
        text: EmbedsState | None,
        frames: Any,
        folded: None = None,
        frame_mask: Tensor | None = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> Tensor:
        """Compute the logits of the candidates, shape ``(Bv, Bt, 1 + S)``.

        Arguments as those of the relational graph.
        """
        nodes = displace(noise, radius, noise.dtype)
        if text is not None:
            nodes = text.embeds.unsqueeze(1) + pad_sentence(nodes)
        state = frames.map(lambda x: x.unsqueeze(1))  # (Bv, 1, ...)
        frame_nodes = nodes
        mask = None if frame_mask is None else frame_mask.unsqueeze(1)
        for index, layer in enumerate(self.hidden):
            if index > 0:
                state = layer.prepare(frame_nodes)
            nodes, frame_nodes = layer(nodes, state, mask)
            nodes, frame_nodes = nodes.relu(), frame_nodes.relu()
            if random is not None:
                nodes = self._drop(nodes, f'graph {index} text', random)
                frame_nodes = self._drop(
                    frame_nodes, f'graph {index} frames', random
                )
        if self.hidden:
            left, _ = self.last.node_logits(frame_nodes)
        else:
            left = state.logits
        _, right = self.last.node_logits(nodes)
        logits = pair_logits(left, right, self.last.outer_slope)
        return mean_over_frames(logits, frame_mask)

    def _drop(self, nodes: Tensor, purpose: str, random: PairRandom) -> Tensor:
        """Apply dropout to nodes ``(Bv, Bt, N, D)``."""
        mask = random.dropout_mask(
            purpose, *nodes.shape[2:], rate=self.dropout, like=nodes
        )
        return nodes if mask is None else nodes * mask
