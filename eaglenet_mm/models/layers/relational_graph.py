"""Fine-grained relationship learning: the text-frame relational graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.models.layers.graph_attention import (
    AttentionProjection,
    GraphDropout,
    masked_softmax,
    mean_over_frames,
    pair_logits,
)
from eaglenet_mm.structures import Features


@dataclass
class RelationalFramesState(Features):
    """What one hidden layer needs of the frames, whatever the text.

    Args:
        base (Tensor): Frame-frame messages plus the frame itself, shape
            ``(..., F, D)``.
        left (Tensor): Frame-text logits of frames as rows, ``(..., F, H)``.
        right (Tensor): The same as columns, ``(..., F, H)``.
        values (Tensor): Frame-text values, shape ``(..., H, F, O)``.
    """

    base: Tensor
    left: Tensor
    right: Tensor
    values: Tensor


class RelationalGraphLayer(nn.Module):
    """A hidden layer of relational graph attention.

    Three relations, complete within their kind: text-text and frame-frame
    with the node itself, and frame-text in both directions::

        out_i = sum_r sum_j softmax_j(leaky_relu(a_l^r . h_i^r + a_r^r . h_j^r)) h_j^r
                + W_o x_i,    h^r = W_r x

    Written factorised: what the frames alone decide is computed by
    :meth:`prepare_frames`, logits come from folded vectors, and candidates
    are summed before or after their projection, whichever is narrower.

    Args:
        width (int): Width ``D`` of the nodes.
        num_heads (int): Heads ``H`` of width ``D / H``.
        negative_slope (float): Of the leaky ReLU.
    """  # noqa: E501

    def __init__(
        self, width: int, num_heads: int, negative_slope: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.slope = negative_slope
        head_width = width // num_heads
        self.text_text = AttentionProjection(width, head_width, num_heads)
        self.frame_frame = AttentionProjection(width, head_width, num_heads)
        self.frame_text = AttentionProjection(width, head_width, num_heads)
        self.self_project = nn.Linear(width, head_width, bias=False)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> RelationalFramesState:
        """Compute everything that depends on the frames alone.

        Args:
            frames (Tensor): Shape ``(..., F, D)``.
            frame_mask (Tensor, optional): Shape ``(..., F)``.
        """
        ff_left, ff_right = self.frame_frame.folded()
        ft_left, ft_right = self.frame_text.folded()
        narrow = frames @ torch.cat([ff_left, ff_right, ft_left, ft_right]).T
        left, right, text_left, text_right = narrow.split(
            self.num_heads, dim=-1
        )
        attention = masked_softmax(
            pair_logits(left, right, self.slope), frame_mask
        )  # (..., H, F, F)
        values = self.frame_frame.split_heads(self.frame_frame.project(frames))
        messages = attention @ values + self.self_project(frames).unsqueeze(-3)
        return RelationalFramesState(
            base=messages.transpose(-2, -3).flatten(-2),  # (..., F, D)
            left=text_left,
            right=text_right,
            values=self.frame_text.split_heads(
                self.frame_text.project(frames)
            ),  # (..., H, F, O)
        )

    def forward(
        self,
        text_nodes: Tensor,
        frames: RelationalFramesState,
        frame_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Pass messages between the texts and the frames of each pair.

        Args:
            text_nodes (Tensor): Shape ``(Bt, Bv, T, D)``.
            frames (RelationalFramesState): Leading axes that broadcast with
                ``(Bt, Bv)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.

        Returns:
            tuple[Tensor, Tensor]: New text nodes ``(Bt, Bv, T, D)`` and frame
            nodes ``(Bt, Bv, F, D)``, before the activation.
        """
        width = text_nodes.shape[-1]
        tt_left, tt_right = self.text_text.folded()
        ft_left, ft_right = self.frame_text.folded()
        narrow_weight = torch.cat([tt_left, tt_right, ft_left, ft_right])
        products = (
            text_nodes
            @ torch.cat(
                [
                    self.text_text.project.weight,
                    self.self_project.weight,
                    narrow_weight,
                ]
            ).T
        )  # one product over the widest tensor there is
        values, itself, narrow = products.split(
            [width, width // self.num_heads, len(narrow_weight)], dim=-1
        )
        left, right, text_left, text_right = narrow.split(
            self.num_heads, dim=-1
        )
        text_attention = pair_logits(left, right, self.slope).softmax(dim=-1)
        to_text_attention = masked_softmax(
            pair_logits(text_left, frames.right, self.slope), frame_mask
        )  # (Bt, Bv, H, T, F)
        new_text = (
            text_attention @ self.text_text.split_heads(values)
            + to_text_attention @ frames.values
            + itself.unsqueeze(-3)
        )  # (Bt, Bv, H, T, O)
        to_frame_attention = pair_logits(
            frames.left, text_right, self.slope
        ).softmax(dim=-1)  # (Bt, Bv, H, F, T)
        new_frames = frames.base + self._candidates_to_frames(
            to_frame_attention, text_nodes
        )
        return new_text.transpose(-2, -3).flatten(-2), new_frames

    def _candidates_to_frames(
        self, attention: Tensor, text_nodes: Tensor
    ) -> Tensor:
        """Send the projected candidates to the frames, ``(Bt, Bv, F, D)``."""
        num_frames, num_nodes = attention.shape[-2:]
        if num_frames > num_nodes:
            projected = self.frame_text.project(text_nodes)
            messages = attention @ self.frame_text.split_heads(projected)
            return messages.transpose(-2, -3).flatten(-2)
        weights = self.frame_text.head_weights()
        heads = [  # head by head: every wide tensor is made contiguous
            (attention[..., head, :, :] @ text_nodes) @ weights[head].T
            for head in range(self.num_heads)
        ]
        return torch.cat(heads, dim=-1)


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
        ValueError: If ``width`` is no multiple of ``num_heads`` or
            ``num_layers`` is below 1.
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
        self.dropout = dropout
        self.slope = negative_slope
        self.hidden = nn.ModuleList(
            RelationalGraphLayer(width, num_heads, negative_slope)
            for _ in range(num_layers - 1)
        )
        self.last = AttentionProjection(width, width, num_heads)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> RelationalFramesState | None:
        """Compute the video side of the first hidden layer, if there is one.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.
        """
        if not self.hidden:
            return None
        return self.hidden[0].prepare_frames(frames, frame_mask)

    def forward(
        self,
        text_nodes: Tensor,
        frames: Tensor,
        state: RelationalFramesState | None,
        frame_mask: Tensor | None = None,
        dropout: GraphDropout | None = None,
    ) -> Tensor:
        """Compute the logits of the candidates, averaged over the frames.

        Args:
            text_nodes (Tensor): The sentence and its candidates, shape
                ``(Bt, Bv, T, D)``.
            frames (Tensor): Frame nodes, shape ``(Bv, F, D)``.
            state (RelationalFramesState, optional): Of
                :meth:`prepare_frames`.
            frame_mask (Tensor, optional): True for frames that count, shape
                ``(Bv, F)``. Default: None, all of them.
            dropout (GraphDropout, optional): Default: None, no dropout.

        Returns:
            Tensor: ``a`` of the paper, before its softmax, shape
            ``(Bt, Bv, T)``.
        """
        for index, layer in enumerate(self.hidden):
            if index > 0:
                state = layer.prepare_frames(frames, frame_mask)
            text_nodes, frames = layer(text_nodes, state, frame_mask)
            text_nodes, frames = text_nodes.relu(), frames.relu()
            if dropout is not None:
                text_nodes = dropout(text_nodes, f'graph {index} text')
                frames = dropout(frames, f'graph {index} frames')
        fold_left, fold_right = self.last.folded()
        logits = pair_logits(
            frames @ fold_left.T, text_nodes @ fold_right.T, self.slope
        )
        return mean_over_frames(logits, frame_mask)


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
