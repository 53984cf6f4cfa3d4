"""A hidden layer of the text-frame relational graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eaglenet_mm.models.layers.graph_attention import (
    AttentionProjection,
    masked_softmax,
    pair_logits,
    product_type,
)
from eaglenet_mm.models.layers.message_products import MessageOptions
from eaglenet_mm.models.layers.relational_messages import RelationalMessages
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import Features


@dataclass
class RelationalFramesState(Features):
    """What one hidden layer needs of the frames, whatever the text.

    Args:
        base (Tensor): Frame-frame messages plus the frame itself, shape
            ``(Bv, F, D)``.
        left (Tensor): Frame-text logits of frames as rows, ``(Bv, F, H)``.
        right (Tensor): The same as columns, ``(Bv, F, H)``.
        values (Tensor): Frame-text values, head after head, ``(Bv, F, D)``.
    """

    base: Tensor
    left: Tensor
    right: Tensor
    values: Tensor


@dataclass
class RelationalTextsState(Features):
    """What one hidden layer needs of the sentences, whatever the video.

    Args:
        values (Tensor): Text-text values plus the node itself, ``(Bt, D)``.
        narrow (Tensor): Logits, text-text left and right, then frame-text
            left and right, shape ``(Bt, 4 H)``.
        to_frames (Tensor): Frame-text values, shape ``(Bt, D)``.
    """

    values: Tensor
    narrow: Tensor
    to_frames: Tensor


class FoldedLayer(NamedTuple):
    """Weights of a hidden layer, made ready for chunks of pairs.

    Args:
        weight (Tensor): Everything a candidate is multiplied with, shape
            ``(D + O (+ D) + 4 H, D)``.
        frame_weight (Tensor): Of frame-text values, shape ``(D, D)``.
    """

    weight: Tensor
    frame_weight: Tensor


class RelationalGraphLayer(nn.Module):
    """A hidden layer of relational graph attention.

    Three relations, complete within their kind: text-text and frame-frame
    with the node itself, and frame-text in both directions::

        out_i = sum_r sum_j softmax_j(leaky_relu(a_l^r . h_i^r + a_r^r . h_j^r)) h_j^r
                + W_o x_i,    h^r = W_r x

    Written factorised. What the frames alone or the sentence alone decide is
    computed once a side; of a candidate ``t + s`` only the displacement ``s``
    is multiplied for each pair, since attention sums to one; logits come from
    folded vectors; and candidates are summed before or after their
    projection to the frames, whichever is narrower.

    Args:
        width (int): Width ``D`` of the nodes.
        num_heads (int): Heads ``H`` of width ``O = D / H``.
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
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.
        """
        narrow = (
            frames
            @ torch.cat(
                [*self.frame_frame.folded(), *self.frame_text.folded()]
            ).T
        )
        left, right, text_left, text_right = narrow.split(
            self.num_heads, dim=-1
        )
        attention = masked_softmax(
            pair_logits(left, right, self.slope), frame_mask
        )  # (Bv, H, F, F)
        values = self.frame_frame.split_heads(self.frame_frame.project(frames))
        messages = attention @ values + self.self_project(frames).unsqueeze(-3)
        return RelationalFramesState(
            base=messages.transpose(-2, -3).flatten(-2),  # (Bv, F, D)
            left=text_left,
            right=text_right,
            values=self.frame_text.project(frames),
        )

    def prepare_text(self, text: Tensor) -> RelationalTextsState:
        """Compute everything that depends on the sentences, ``(Bt, D)``."""
        itself = self.self_project(text).repeat(1, self.num_heads)
        return RelationalTextsState(
            values=self.text_text.project(text) + itself,
            narrow=text @ self._narrow_weight().T,
            to_frames=self.frame_text.project(text),
        )

    def _narrow_weight(self) -> Tensor:
        return torch.cat([*self.text_text.folded(), *self.frame_text.folded()])

    def fold(self, projects_first: bool) -> FoldedLayer:
        """Stack the weights; done once for all chunks of a matrix.

        Args:
            projects_first (bool): Whether candidates are projected before the
                frames add them up, as :class:`RelationalMessages` does where
                frames outnumber candidates.
        """
        frame_weight = self.frame_text.project.weight
        parts = [self.text_text.project.weight, self.self_project.weight]
        if projects_first:
            parts.append(frame_weight)
        return FoldedLayer(
            torch.cat([*parts, self._narrow_weight()]), frame_weight
        )

    def forward(
        self,
        noise: Tensor,
        radius: Tensor | None,
        text: RelationalTextsState | None,
        frames: RelationalFramesState,
        folded: FoldedLayer,
        frame_mask: Tensor | None,
        last: tuple[Tensor | None, Tensor | None],
        masks: tuple[Tensor | None, Tensor | None],
        options: MessageOptions,
    ) -> tuple[Tensor, Tensor]:
        """Pass messages between the texts and the frames of each pair.

        Arguments, shapes and results are those of
        :class:`RelationalMessages`.
        """
        dtype = product_type(folded.weight)
        no_text = (None, None, None)
        with torch.autocast(noise.device.type, enabled=False):
            return RelationalMessages.apply(
                noise,
                radius,
                *(
                    no_text
                    if text is None
                    else (
                        text.values.to(dtype),
                        text.narrow,
                        text.to_frames.to(dtype),
                    )
                ),
                frames.base.to(dtype),
                at_least_float32(frames.left),
                at_least_float32(frames.right),
                frames.values.to(dtype),
                folded.weight.to(dtype),
                folded.frame_weight.to(dtype),
                *(None if x is None else x.to(dtype) for x in last),
                frame_mask,
                *masks,
                options,
            )
