"""Messages of one relational layer, with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from eaglenet_mm.models.layers.graph_attention import attention_of
from eaglenet_mm.models.layers.message_gradients import (
    MessageGradients,
    SavedMessages,
)
from eaglenet_mm.models.layers.message_products import (
    MessageOptions,
    MessageSizes,
    by_head,
    displace,
    last_product,
    last_product_gradient,
    narrow_logits,
    node_gradient,
    send_to_frames,
    send_to_texts,
)
from eaglenet_mm.models.layers.workspace import Workspace


class RelationalMessages(Function):
    """Messages between text nodes and frames, ReLU and dropout.

    Formulas of :class:`~eaglenet_mm.models.layers.RelationalGraphLayer`. The
    backward pass is written out, because it can then keep just the projected
    candidates, the results and the attentions, and reuse memory.

    Pairs are ordered by video, so that products with what the frames have
    prepared run over all texts of a video at once. Heads come first in what
    is returned, so that the result of every product is contiguous. The
    gradient has no gradient itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        noise: Tensor,
        radius: Tensor | None,
        text_values: Tensor | None,
        text_narrow: Tensor | None,
        text_to_frames: Tensor | None,
        base: Tensor,
        left: Tensor,
        right: Tensor,
        values: Tensor,
        weight: Tensor,
        frame_weight: Tensor,
        last_left: Tensor | None,
        last_right: Tensor | None,
        frame_mask: Tensor | None,
        drop_text: Tensor | None,
        drop_frames: Tensor | None,
        options: MessageOptions,
    ) -> tuple[Tensor, Tensor]:
        """Compute the nodes behind the layer.

        Args:
            ctx: Of autograd.
            noise (Tensor): Of the candidates, shape ``(Bv, Bt, N, D)`` or
                ``(N, D)``, without gradient; or the nodes themselves, shape
                ``(Bv, Bt, N, D)``, if there is no radius.
            radius (Tensor, optional): What noise is multiplied with to
                displace the candidates, shape ``(Bv, Bt, D)``.
            text_values (Tensor, optional): Shape ``(Bt, D)``. With it there
                is one more node in front, whose displacement is zero.
            text_narrow (Tensor, optional): Shape ``(Bt, 4 H)``.
            text_to_frames (Tensor, optional): Shape ``(Bt, D)``.
            base (Tensor): Shape ``(Bv, F, D)``.
            left (Tensor): Shape ``(Bv, F, H)``.
            right (Tensor): Shape ``(Bv, F, H)``.
            values (Tensor): Shape ``(Bv, F, D)``.
            weight (Tensor): Of text-text values, the node itself and, if
                frames outnumber candidates, of frame-text values, and of the
                narrow logits, shape ``(D + O (+ D) + 4 H, D)``.
            frame_weight (Tensor): Of frame-text values, shape ``(D, D)``.
            last_left (Tensor, optional): What the frames behind the layer are
                multiplied with, if only that product is needed, shape
                ``(H, O, H')``.
            last_right (Tensor, optional): The same of the text nodes.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.
            drop_text (Tensor, optional): Dropout, ``(Bv, Bt, H, T, O)``.
            drop_frames (Tensor, optional): Dropout, ``(Bv, Bt, H, F, O)``.
            options (MessageOptions): See there.

        Returns:
            tuple[Tensor, Tensor]: Text nodes ``(H, Bv * Bt, T, O)`` and
            frames ``(H, Bv * Bt, F, O)``; or their products, ``(Bv * Bt, T,
            H')`` and ``(Bv * Bt, F, H')``, in float32 or wider.
        """
        space = options.workspace
        spread = displace(noise, radius, weight.dtype, space)
        videos, texts_a_video, count, width = spread.shape
        size = MessageSizes(
            videos=videos,
            texts=texts_a_video,
            num_candidates=count,
            nodes=count + (text_values is not None),
            frames=base.shape[1],
            heads=left.shape[2],
            width=width,
            products=len(weight),
        )

        def result(name: str, *shape: int) -> Tensor:
            if options.reuse:
                return space.empty(name, shape, spread)
            return spread.new_empty(shape)

        flat = spread.view(size.pairs * size.num_candidates, size.width)
        products = result('products', len(flat), len(weight))
        torch.mm(flat, weight.T, out=products)
        narrow = narrow_logits(products, text_narrow, size)
        text_left, text_right, to_left, to_right = narrow
        among = attention_of(text_left, text_right, options.slope)
        mask = None
        if frame_mask is not None:
            mask = frame_mask.view(size.videos, 1, 1, size.frames)
        shape = (size.videos, size.texts)
        from_frames = attention_of(
            to_left.unflatten(1, shape),
            by_head(right),
            options.slope,
            mask,
        )  # (H, Bv, Bt, T, F)
        to_frames = attention_of(
            by_head(left), to_right.unflatten(1, shape), options.slope
        )  # (H, Bv, Bt, F, T)
        weights = [
            among.to(spread.dtype),
            from_frames.flatten(1, 2).to(spread.dtype),
            to_frames.flatten(1, 2).to(spread.dtype),
        ]
        texts = result('texts', size.heads, size.pairs, size.nodes,
                       size.head_width)  # fmt: skip
        frames = result('frames', size.heads, size.pairs, size.frames,
                        size.head_width)  # fmt: skip
        send_to_texts(texts, products, text_values, values, weights, size)
        send_to_frames(
            frames, spread, products, text_to_frames, base, frame_weight,
            weights[2], size, space,
        )  # fmt: skip
        for nodes, mask in ((texts, drop_text), (frames, drop_frames)):
            nodes.relu_()
            if mask is not None:
                nodes.mul_(mask.flatten(0, 1).transpose(0, 1))
        ctx.save_for_backward(
            noise, radius, last_left, last_right, texts, frames, products,
            narrow, left, right, values, weight, frame_weight, *weights,
        )  # fmt: skip
        ctx.size, ctx.options = size, options
        ctx.scales = [
            1.0 if mask is None else 1.0 / options.kept
            for mask in (drop_text, drop_frames)
        ]
        ctx.has_sentence = text_values is not None
        if last_left is None or last_right is None:
            return texts, frames
        return last_product(texts, last_right), last_product(frames, last_left)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, text_grad: Tensor, frame_grad: Tensor) -> Any:
        """Compute the gradients of all tensors."""
        noise, radius, last_left, last_right, texts, frames, *kept = (
            ctx.saved_tensors
        )
        saved = SavedMessages(*kept)
        size: MessageSizes = ctx.size
        space: Workspace = ctx.options.workspace
        spread = displace(noise, radius, saved.weight.dtype, space)
        d_spread = torch.empty_like(spread)
        if radius is not None:
            d_spread = space.empty('d_spread', tuple(spread.shape), spread)
        gradients = MessageGradients(saved, spread, d_spread, size, space)
        for head in range(size.heads):
            gradients.add_texts(
                head,
                node_gradient(
                    text_grad, texts, last_right, head, ctx.scales[0], space
                ),
            )
            gradients.add_frames(
                head,
                node_gradient(
                    frame_grad, frames, last_left, head, ctx.scales[1], space
                ),
            )
        narrow, left, right, weight = gradients.finish(ctx.options.slope)
        sentence: tuple[Tensor | None, ...] = (None, None, None)
        if ctx.has_sentence:
            sentence = (
                gradients.sentence,
                narrow,
                gradients.sentence_to_frames,
            )
        displaced: tuple[Tensor | None, ...] = (d_spread, None)
        if radius is not None:
            by_radius = torch.mul(d_spread, noise, out=d_spread).sum(2)
            displaced = (None, by_radius.to(radius.dtype))
        return (
            *displaced,
            *sentence,
            gradients.base,
            left,
            right,
            gradients.values,
            weight,
            gradients.frame_weight,
            last_product_gradient(frame_grad, frames, last_left),
            last_product_gradient(text_grad, texts, last_right),
            *[None] * 4,
        )
