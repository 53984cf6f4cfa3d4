"""Text-frame graph without relations, an ablation of EagleNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import PairRandom, check_dropout
from eaglenet_mm.models.layers.relational_graph import (
    AttentionProjection,
    LastLogits,
    check_graph_sizes,
    masked_softmax,
    mean_over_frames,
    pad_sentence,
    pair_logits,
)
from eaglenet_mm.models.layers.relational_messages import Workspace, displace
from eaglenet_mm.structures import EmbedsState, Features


@dataclass
class PlainFramesState(Features):
    """Values and attention logits of nodes in a hidden layer."""

    values: Tensor  # (..., H, N, O)
    left: Tensor  # logits of nodes as rows, (..., N, H)
    right: Tensor  # logits of nodes as columns, (..., N, H)


class PlainGraph(nn.Module):
    """Logits of the text candidates from a single-relation graph.

    GAT or GATv2 on the complete graph of all nodes, the ablation of the
    relational graph in `EagleNet <https://arxiv.org/abs/2603.25267>`_. Same
    interface as :class:`~eaglenet_mm.models.layers.RelationalGraph`.

    Logits are ``leaky_relu(a_l . h_i + a_r . h_j)`` in version 1 and, as in
    the release, ``a_l . leaky_relu(h_i) + a_r . leaky_relu(h_j)`` in version
    2. The usual GATv2 applies the leaky ReLU to the sum instead.

    Args:
        width (int): Width ``D`` of the nodes.
        num_layers (int): Layers, including the last. Default: 2.
        num_heads (int): Attention heads. Default: 4.
        dropout (float): Dropout rate after each hidden layer. Default: 0.5.
        negative_slope (float): Slope of the leaky ReLU. Default: 0.1.
        version (int): 1 for GAT, 2 for the release's GATv2. Default: 1.

    Raises:
        ValueError: If a size is invalid or ``version`` is neither 1 nor 2.

    Example:
        >>> graph = PlainGraph(32, version=2)
        >>> noise, radius = torch.rand(20, 32), torch.ones(4, 3, 32)
        >>> texts = graph.prepare_text(text.embeds)
        >>> frames = graph.prepare_frames(video.frames, None)
        >>> graph(noise, radius, texts, frames).shape  # (Bv, Bt, 1 + S)
        torch.Size([4, 3, 21])
    """

    hidden: Any  # nn.ModuleList is not generic in its modules

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
        self.slope = negative_slope
        self.hidden = nn.ModuleList(
            AttentionProjection(width, width // num_heads, num_heads)
            for _ in range(num_layers - 1)
        )
        self.last = AttentionProjection(width, width, num_heads)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> PlainFramesState | LastLogits:
        """Precompute the frame inputs ``(Bv, F, D)`` of the first layer."""
        if not self.hidden:
            return LastLogits(self._logits(self.last, frames)[0])
        return self._prepare(self.hidden[0], frames)

    def prepare_text(self, text: Tensor) -> EmbedsState:
        """Wrap the sentences ``(Bt, D)``; nothing can be precomputed."""
        return EmbedsState(text)

    def fold(self, num_frames: int, num_candidates: int) -> None:
        """Do nothing: there is nothing to share between chunks."""

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

        See :meth:`RelationalGraph.forward` for the arguments.
        """
        nodes = displace(noise, radius, noise.dtype)
        if text is not None:
            nodes = text.embeds.unsqueeze(1) + pad_sentence(nodes)
        state = frames.map(lambda x: x.unsqueeze(1))  # (Bv, 1, ...)
        frame_nodes = nodes
        mask = None
        if frame_mask is not None:  # of frames and texts, (Bv, 1, F + T)
            count = nodes.shape[-2]
            mask = F.pad(frame_mask, (0, count), value=True).unsqueeze(1)
        for index, layer in enumerate(self.hidden):
            if index > 0:
                state = self._prepare(layer, frame_nodes)
            own = self._prepare(layer, nodes)
            nodes, frame_nodes = (
                self._messages(side.left, state, own, mask).relu()
                for side in (own, state)
            )
            if random is not None:
                nodes = self._drop(nodes, f'graph {index} text', random)
                frame_nodes = self._drop(
                    frame_nodes, f'graph {index} frames', random
                )
        if self.hidden:
            left, _ = self._logits(self.last, frame_nodes)
        else:
            left = state.logits
        _, right = self._logits(self.last, nodes)
        return mean_over_frames(self._sums(left, right), frame_mask)

    def _prepare(
        self, layer: AttentionProjection, nodes: Tensor
    ) -> PlainFramesState:
        """Compute values and logits of nodes ``(..., N, C)``."""
        values = layer.values(nodes)
        return PlainFramesState(values, *self._logits(layer, nodes, values))

    def _logits(
        self,
        layer: AttentionProjection,
        nodes: Tensor,
        values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits of nodes as rows and as columns, each ``(..., N, H)``."""
        if self.version == 1:
            left, right = layer.folded()
            return nodes @ left.T, nodes @ right.T
        values = layer.values(nodes) if values is None else values
        active = F.leaky_relu(values, self.slope)
        return (
            (active @ layer.left).transpose(-1, -2),
            (active @ layer.right).transpose(-1, -2),
        )

    def _sums(self, left: Tensor, right: Tensor) -> Tensor:
        """Attention logits of rows and columns, ``(..., H, N, M)``."""
        return pair_logits(
            left, right, self.slope if self.version == 1 else 1.0
        )

    def _messages(
        self,
        left: Tensor,
        frames: PlainFramesState,
        texts: PlainFramesState,
        mask: Tensor | None,
    ) -> Tensor:
        """Messages from all nodes to the rows, ``(Bv, Bt, N, D)``."""
        from_frames = self._sums(left, frames.right)
        from_texts = self._sums(left, texts.right)
        from_frames = from_frames.expand(*from_texts.shape[:-1], -1)
        logits = torch.cat([from_frames, from_texts], dim=-1)
        weights = masked_softmax(logits, mask)
        count = frames.left.shape[-2]
        out = (
            weights[..., :count] @ frames.values
            + weights[..., count:] @ texts.values
        )  # (Bv, Bt, H, N, O)
        return out.transpose(-2, -3).flatten(-2)

    def _drop(self, nodes: Tensor, purpose: str, random: PairRandom) -> Tensor:
        """Apply dropout to nodes ``(Bv, Bt, N, D)``."""
        mask = random.dropout_mask(
            purpose, *nodes.shape[2:], rate=self.dropout, like=nodes
        )
        return nodes if mask is None else nodes * mask

    def numbers_per_pair(
        self, num_frames: int, num_candidates: int, training: bool
    ) -> float:
        """Count the float32 numbers per pair.

        See :meth:`RelationalGraph.numbers_per_pair` for the arguments.
        """
        width, heads = self.last.project.in_features, self.last.num_heads
        nodes = num_candidates + 1
        wide = float(nodes)  # displacements
        if self.version == 2:  # values of the last layer
            frames = num_frames if self.hidden else 0
            wide += heads * (3 * nodes + 2 * frames)
            wide += 0 if training else 3
        elif not self.hidden and not training:  # attention logits
            logits = 2 * heads * num_frames + heads + 4
            wide += max(2.0 * nodes, 1 + nodes * logits / width)
        layers = len(self.hidden) if training else min(1, len(self.hidden))
        wide += layers * (5 + 2 * (self.version == 2)) * (nodes + num_frames)
        attention = (2 * nodes + num_frames) * (nodes + num_frames) * layers
        if len(self.hidden) > 1 and not training:
            attention += num_frames * (nodes + num_frames)
        logits = (1 + layers) * nodes * num_frames
        return width * wide + heads * (attention + logits)
