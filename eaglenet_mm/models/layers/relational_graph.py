"""Fine-grained relationship learning: the text-frame relational graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eaglenet_mm.models.layers.graph_attention import (
    AttentionProjection,
    check_dropout,
    mean_over_frames,
    pad_sentence,
    pair_logits,
    product_type,
)
from eaglenet_mm.models.layers.keyed_random import PairRandom, kept_share
from eaglenet_mm.models.layers.message_products import (
    MessageOptions,
    displace,
)
from eaglenet_mm.models.layers.relational_layer import (
    FoldedLayer,
    RelationalFramesState,
    RelationalGraphLayer,
    RelationalTextsState,
)
from eaglenet_mm.models.layers.workspace import Workspace
from eaglenet_mm.structures import Features


@dataclass
class LastLogits(Features):
    """Logits of the last layer, where no layer comes before it.

    Args:
        logits (Tensor): Shape ``(B, ..., H)``.
    """

    logits: Tensor


class FoldedGraph(NamedTuple):
    """Weights of a graph, made ready for chunks of pairs.

    Args:
        hidden (list[FoldedLayer]): Of the hidden layers.
        left (Tensor): Of the last logits of the frames, ``(H, O, H)``.
        right (Tensor): Of those of the text nodes, ``(H, O, H)``.
    """

    hidden: list[FoldedLayer]
    left: Tensor
    right: Tensor


class RelationalGraph(nn.Module):
    """Weights of the text candidates of every pair.

    Implements the relational graph of `EagleNet
    <https://arxiv.org/abs/2603.25267>`_. Of the last layer only the
    frame-text logits are computed, the only part of it that reaches the
    result (the release computes and drops the rest).

    Args:
        width (int): Width ``D`` of the nodes.
        num_layers (int): Layers, the last included. Default: 2.
        num_heads (int): Heads. Default: 4.
        dropout (float): Rate behind each hidden layer. Default: 0.5.
        negative_slope (float): Of the leaky ReLU. Default: 0.1.

    Raises:
        ValueError: If ``width`` is no multiple of ``num_heads``,
            ``num_layers`` is below 1 or ``negative_slope`` below 0.
    """

    hidden: Any  # nn.ModuleList forgets what class its modules have

    def __init__(
        self,
        width: int,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.5,
        negative_slope: float = 0.1,
    ) -> None:
        super().__init__()
        check_graph_sizes(width, num_layers, num_heads)
        check_dropout(dropout)
        if negative_slope < 0:
            raise ValueError(
                'negative_slope cannot be negative itself, but is '
                f'{negative_slope}.'
            )
        self.dropout = dropout
        self.slope = negative_slope
        self.hidden = nn.ModuleList(
            RelationalGraphLayer(width, num_heads, negative_slope)
            for _ in range(num_layers - 1)
        )
        self.last = AttentionProjection(width, width, num_heads)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> RelationalFramesState | LastLogits:
        """Compute the video side of the first layer.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.
        """
        if not self.hidden:
            return LastLogits(frames @ self.last.folded()[0].T)
        return self.hidden[0].prepare_frames(frames, frame_mask)

    def prepare_text(self, text: Tensor) -> RelationalTextsState | LastLogits:
        """Compute the text side of the first layer, of ``(Bt, D)``."""
        if not self.hidden:
            return LastLogits(text @ self.last.folded()[1].T)
        return self.hidden[0].prepare_text(text)

    def fold(self, num_frames: int, num_candidates: int) -> FoldedGraph:
        """Make the weights ready for chunks of pairs.

        Args:
            num_frames (int): Frames ``F``.
            num_candidates (int): Displaced candidates of the first layer.
        """
        # the sentence, the origin of the first layer, is a node of the others
        counts = [num_candidates] + [num_candidates + 1] * len(self.hidden)
        hidden = [
            layer.fold(num_frames > count)
            for layer, count in zip(self.hidden, counts, strict=False)
        ]
        shape = (self.last.num_heads, -1)
        left, right = (
            weight.unflatten(1, shape).permute(1, 2, 0)
            for weight in self.last.folded()
        )
        return FoldedGraph(hidden, left, right)

    def numbers_per_pair(
        self, num_frames: int, num_candidates: int, training: bool
    ) -> float:
        """Count the numbers that the graph of one pair takes.

        Args:
            num_frames (int): Frames ``F``.
            num_candidates (int): Candidates ``S``.
            training (bool): Count what the backward pass needs, else the
                widest tensors that live at once.
        """
        width, heads = self.last.project.in_features, self.last.num_heads
        nodes = num_candidates + 1
        messages = nodes * num_frames * heads
        if not self.hidden:  # displacements and last logits
            if training:
                return num_candidates * width + messages
            return nodes * (width + 2 * heads) + 2 * messages
        products = (1 + 1 / heads + (num_frames > num_candidates)) * nodes
        first = width * (products + nodes + num_frames)
        if not training:
            # the widest are projections, or attention where D is small
            dots = heads * nodes * (2 * nodes + num_frames)
            total = first + width * (num_candidates + num_frames)
            total += max(width * num_frames, 3 * width + dots)
            if len(self.hidden) > 1:  # frames are those of a pair then
                dots = heads * (nodes + 2 * num_frames) * (nodes + num_frames)
                total = 2 * total + width + dots
            return total + 4 * width * num_frames * (len(self.hidden) > 2)
        attention = 1.3 * heads * nodes * nodes + 3.2 * messages
        # further layers prepare the frames of every pair for themselves
        further = width * (products + 2 * nodes + 4 * num_frames + 1)
        further += heads * (nodes + 2 * num_frames) * (nodes + num_frames)
        return first + attention + (len(self.hidden) - 1) * further

    def forward(
        self,
        noise: Tensor,
        radius: Tensor | None,
        text: Any,
        frames: Any,
        folded: FoldedGraph | None = None,
        frame_mask: Tensor | None = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> Tensor:
        """Compute the logits of the candidates, averaged over the frames.

        Args:
            noise (Tensor): Noise of the candidates, without gradient, shape
                ``(S, D)`` for all pairs or ``(Bv, Bt, S, D)``. Without
                radius and text these are the text nodes themselves.
            radius (Tensor, optional): What noise is multiplied with to
                displace the candidates from their sentence, shape
                ``(Bv, Bt, D)``.
            text (RelationalTextsState | LastLogits, optional): Of
                :meth:`prepare_text`.
            frames (RelationalFramesState | LastLogits): Of
                :meth:`prepare_frames`.
            folded (FoldedGraph, optional): Of :meth:`fold`. Default: None,
                fold now.
            frame_mask (Tensor, optional): True for frames that count, shape
                ``(Bv, F)``. Default: None, all of them.
            random (PairRandom, optional): Random numbers of the dropout.
                Default: None, no dropout.
            workspace (Workspace, optional): Memory of other chunks.

        Returns:
            Tensor: ``a`` of the paper, before its softmax, of the sentence
            and its candidates, shape ``(Bv, Bt, 1 + S)``.
        """
        shape = (noise if radius is None else radius).shape[:2]
        is_shallow = isinstance(frames, LastLogits)
        if folded is None:
            num_frames = (frames.logits if is_shallow else frames.base).shape[
                1
            ]
            folded = self.fold(num_frames, noise.shape[-2])
        if is_shallow:
            spread = displace(noise, radius, noise.dtype)
            own = spread @ self.last.folded()[1].T
            if text is not None:
                own = pad_sentence(own) + text.logits.unsqueeze(1)
            logits = pair_logits(frames.logits.unsqueeze(1), own, self.slope)
            return mean_over_frames(logits, frame_mask)
        count = noise.shape[-2] + (text is not None)
        space = workspace or Workspace()
        options = MessageOptions(
            self.slope,
            kept_share(self.dropout),
            space,
            reuse=workspace is not None and not torch.is_grad_enabled(),
        )
        mask = frame_mask
        text_nodes = frame_nodes = noise
        for index, layer in enumerate(self.hidden):
            if index > 0:
                # the nodes of a pair now are its own: one text a video
                noise = _join_heads(text_nodes).unsqueeze(1)
                radius = text = None
                if mask is not None and index == 1:
                    mask = mask.repeat_interleave(shape[1], dim=0)
                frames = layer.prepare_frames(_join_heads(frame_nodes), mask)
            text_nodes, frame_nodes = layer(
                noise,
                radius,
                text,
                frames,
                folded.hidden[index],
                mask,
                (folded.left, folded.right)
                if layer is self.hidden[-1]
                else (None, None),
                self._dropout(random, index, count, frames),
                options._replace(reuse=options.reuse and index == 0),
            )
        # of the last layer the logits alone are needed, (Bv * Bt, H, F, T)
        logits = pair_logits(frame_nodes, text_nodes, self.slope)
        return mean_over_frames(logits.unflatten(0, shape), frame_mask)

    def _dropout(
        self,
        random: PairRandom | None,
        index: int,
        num_texts: int,
        frames: RelationalFramesState,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Draw the dropout masks of a layer, ``(Bv, Bt, H, nodes, O)``."""
        if random is None or self.dropout == 0.0:
            return None, None
        num_frames, heads = frames.left.shape[-2:]
        base = frames.base
        like = base.new_empty(0, dtype=product_type(base))

        def draw(kind: str, count: int) -> Tensor | None:
            shape = (heads, count, base.shape[-1] // heads)
            mask = random.dropout_mask(
                f'graph {index} {kind}', *shape, rate=self.dropout, like=like
            )
            return None if mask is None else mask.view(-1, 1, *shape)

        return draw('text', num_texts), draw('frames', num_frames)


def _join_heads(nodes: Tensor) -> Tensor:
    """Bring nodes ``(H, B, N, O)`` to ``(B, N, D)``."""
    return nodes.permute(1, 2, 0, 3).flatten(2)


def check_graph_sizes(width: int, num_layers: int, num_heads: int) -> None:
    """Refuse sizes a graph cannot have."""
    if num_layers < 1:
        raise ValueError(
            f'A graph needs at least one layer, but num_layers={num_layers}.'
        )
    if width % num_heads:
        raise ValueError(
            f'The graph splits its width in heads, but {width} is no '
            f'multiple of num_heads={num_heads}.'
        )
