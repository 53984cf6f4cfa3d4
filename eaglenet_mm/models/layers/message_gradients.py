"""The backward pass of the messages of a relational layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eaglenet_mm.models.layers.graph_attention import attention_backward
from eaglenet_mm.models.layers.message_products import MessageSizes, by_head
from eaglenet_mm.models.layers.workspace import Workspace


class SavedMessages(NamedTuple):
    """What the forward pass keeps; shapes as those of the layer.

    Args:
        products (Tensor): Candidates times ``weight``.
        narrow (Tensor): Logits of the text nodes, ``(4, H, Bv * Bt, T)``.
        left (Tensor): Logits of the frames as rows.
        right (Tensor): Logits of the frames as columns.
        values (Tensor): Frame-text values.
        weight (Tensor): What candidates are multiplied with.
        frame_weight (Tensor): Of frame-text values.
        among (Tensor): Attention among text nodes, ``(H, Bv * Bt, T, T)``.
        from_frames (Tensor): Of text nodes to frames, ``(..., T, F)``.
        to_frames (Tensor): Of frames to text nodes, ``(..., F, T)``.
    """

    products: Tensor
    narrow: Tensor
    left: Tensor
    right: Tensor
    values: Tensor
    weight: Tensor
    frame_weight: Tensor
    among: Tensor
    from_frames: Tensor
    to_frames: Tensor


class MessageGradients:
    """Adds up the gradients head by head.

    Call :meth:`add_texts` and :meth:`add_frames` for every head, in order,
    then :meth:`finish`.

    Args:
        saved (SavedMessages): Of the forward pass.
        spread (Tensor): Displacements, shape ``(Bv, Bt, N, D)``.
        d_spread (Tensor): Where their gradient goes.
        size (MessageSizes): Sizes.
        space (Workspace): Memory of what does not outlive the backward pass.
    """

    def __init__(
        self,
        saved: SavedMessages,
        spread: Tensor,
        d_spread: Tensor,
        size: MessageSizes,
        space: Workspace,
    ) -> None:
        self.saved, self.size, self.space = saved, size, space
        self.extra = size.nodes - size.num_candidates
        self.by_pair = spread.flatten(0, 1)  # (Bv * Bt, N, D)
        self.d_by_pair = d_spread.flatten(0, 1)
        rows = (size.pairs, size.num_candidates)
        self.by_node = saved.products.view(*rows, size.products)
        self.d_by_node = space.empty(
            'd_products', (*rows, size.products), spread
        )
        self.message = space.empty('message', (*rows, size.head_width), spread)
        wide = size.width + size.head_width
        self.d_itself = self.d_by_node[..., size.width : wide].zero_()
        self.values = torch.empty_like(saved.values)
        self.base = torch.empty_like(saved.values)
        self.sentence = spread.new_empty(size.texts, size.width)
        self.sentence_to_frames = torch.empty_like(self.sentence)
        self.frame_weight = torch.zeros_like(saved.frame_weight)
        # a column of the sentence itself carries nothing
        self.among, self.from_frames, self.to_frames = (
            torch.zeros_like(x)
            for x in (saved.among, saved.from_frames, saved.to_frames)
        )

    def add_texts(self, head: int, gradient: Tensor) -> None:
        """Take in the gradient of the text nodes, ``(Bv * Bt, T, O)``."""
        size, saved, part = self.size, self.saved, self.size.part(head)
        rows = (size.videos, size.texts * size.nodes)
        by_video = gradient.view(*rows, size.head_width)
        by_text = gradient.unflatten(0, (size.videos, size.texts))
        torch.sum(by_text, (0, 2), out=self.sentence[:, part])
        among = saved.among[head][..., self.extra :]
        self.among[head][..., self.extra :] = (
            gradient @ self.by_node[..., part].mT
        )
        torch.bmm(among.mT, gradient, out=self.message)
        self.d_by_node[..., part] = self.message
        self.d_itself += gradient[:, self.extra :]
        torch.bmm(
            by_video,
            saved.values[..., part].mT,
            out=self.from_frames[head].view(*rows, size.frames),
        )
        weights = saved.from_frames[head].view(*rows, size.frames)
        self.values[..., part] = weights.mT @ by_video

    def add_frames(self, head: int, gradient: Tensor) -> None:
        """Take in the gradient of the frames, ``(Bv * Bt, F, O)``."""
        size, part = self.size, self.size.part(head)
        by_text = gradient.unflatten(0, (size.videos, size.texts))
        self.base[..., part] = by_text.sum(1)
        torch.sum(by_text, (0, 2), out=self.sentence_to_frames[:, part])
        weights = self.saved.to_frames[head][..., self.extra :]
        d_weights = self.to_frames[head][..., self.extra :]
        if size.projects_first:
            start = size.width + size.head_width
            place = slice(start + part.start, start + part.stop)
            d_weights.copy_(gradient @ self.by_node[..., place].mT)
            torch.bmm(weights.mT, gradient, out=self.message)
            self.d_by_node[..., place] = self.message
            return
        shape = (size.pairs, size.frames, size.width)
        sums = self.space.empty('sums', shape, gradient)
        d_sums = self.space.empty('d_sums', shape, gradient)
        torch.bmm(weights, self.by_pair, out=sums)
        flat = gradient.flatten(0, 1)
        torch.mm(flat.T, sums.flatten(0, 1), out=self.frame_weight[part])
        weight = self.saved.frame_weight[part]
        torch.mm(flat, weight, out=d_sums.flatten(0, 1))
        d_weights.copy_(d_sums @ self.by_pair.mT)
        self.d_by_pair.baddbmm_(weights.mT, d_sums, beta=int(head > 0))

    def finish(self, slope: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take the gradients of attentions and products to the inputs.

        Returns:
            tuple[Tensor, Tensor, Tensor, Tensor]: Of the sentences' narrow
            logits, of ``left``, ``right`` and ``weight``. That of the
            displacements is complete.
        """
        size, saved = self.size, self.saved
        shape = (size.videos, size.texts)
        text_left, text_right, to_left, to_right = (
            x.unflatten(1, shape) for x in saved.narrow
        )
        d_text_left, d_text_right = attention_backward(
            self.among.unflatten(1, shape),
            saved.among.unflatten(1, shape),
            text_left,
            text_right,
            slope,
        )
        d_to_left, d_right = attention_backward(
            self.from_frames.unflatten(1, shape),
            saved.from_frames.unflatten(1, shape),
            to_left,
            by_head(saved.right),
            slope,
        )
        d_left, d_to_right = attention_backward(
            self.to_frames.unflatten(1, shape),
            saved.to_frames.unflatten(1, shape),
            by_head(saved.left),
            to_right,
            slope,
        )
        d_narrow = torch.cat(
            [d_text_left, d_text_right, d_to_left, d_to_right]
        )  # (4 H, Bv, Bt, T)
        d_products = self.d_by_node.flatten(0, 1)
        d_products[:, -4 * size.heads :] = (
            d_narrow[..., self.extra :].flatten(1).T
        )
        self.d_by_pair.flatten(0, 1).addmm_(
            d_products, saved.weight, beta=int(not size.projects_first)
        )
        return (
            d_narrow.sum((1, 3)).T,
            d_left.sum(2).permute(1, 2, 0),
            d_right.sum(2).permute(1, 2, 0),
            d_products.T @ self.by_pair.flatten(0, 1),
        )
