"""Fast kernel of a relational graph layer, with its backward pass.

:class:`RelationalMessages` computes the same numbers as
:meth:`RelationalGraphLayer.plain
<eaglenet_mm.models.layers.RelationalGraphLayer.plain>`; read that first.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Workspace:
    """Reusable buffers for temporary tensors of a chunk of pairs.

    On a CPU, mapping the pages of a new tensor costs more than a pass over
    it, so chunks reuse the same memory. On a GPU, torch's caching allocator
    does this already, and tensors are allocated as usual.

    Example:
        >>> space = Workspace()
        >>> first = space.empty('sums', (2, 3), torch.zeros(1))
        >>> space.empty('sums', (6,), first).data_ptr() == first.data_ptr()
        True
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def empty(
        self,
        name: str,
        shape: tuple[int, ...],
        like: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return an uninitialised tensor; equal names share memory.

        ``like`` sets the device and the default dtype.
        """
        dtype = dtype or like.dtype
        if like.device.type != 'cpu':
            return like.new_empty(shape, dtype=dtype)
        size = math.prod(shape)
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=dtype)
            self._buffers[name, dtype] = buffer
        return buffer[:size].view(shape)


class MessageOptions(NamedTuple):
    """Options of :class:`RelationalMessages`."""

    slope: float  # negative slope of the leaky ReLU
    kept: float  # probability that dropout keeps an entry
    workspace: Workspace  # buffers of temporary tensors
    reuse: bool  # put results into the workspace too; not in training


class _Sizes(NamedTuple):
    """Sizes of a chunk of pairs."""

    videos: int
    texts: int
    candidates: int  # N
    nodes: int  # text nodes T: N, or 1 + N with the sentence first
    frames: int
    heads: int
    width: int
    products: int  # width of a candidate's projections

    @property
    def pairs(self) -> int:
        return self.videos * self.texts

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def projects_first(self) -> bool:
        """Whether candidates are projected before they are summed."""
        return self.products > self.itself.stop + 4 * self.heads

    @property
    def itself(self) -> slice:
        """Columns of the self projection in the products."""
        return slice(self.width, self.width + self.head_width)

    def part(self, head: int, start: int = 0) -> slice:
        """Columns of a head, counted from ``start``."""
        start += head * self.head_width
        return slice(start, start + self.head_width)


class RelationalMessages(Function):
    """Messages between text nodes and frames of pairs, ReLU and dropout.

    Inputs that depend on the frames or the sentence only are precomputed.
    Since attention sums to one, only the displacement ``s`` of a candidate
    ``t + s`` needs projecting; one product gives its values and logits.
    Candidates are summed for the frames before or after their projection,
    whichever is cheaper. The hand-written backward pass keeps only the
    projected candidates, the results and the attention weights, and reuses
    buffers. It is not differentiable itself.

    Pairs are ordered by video, so that one product with the frames covers all
    texts of a video. The head axis comes first in the results, so that every
    product is contiguous.
    """

    @staticmethod
    def forward(
        ctx: Any,
        noise: Tensor,  # (N, D) or (Bv, Bt, N, D), without gradient
        radius: Tensor | None,  # (Bv, Bt, D); None: noise = text nodes
        text_values: Tensor | None,  # (Bt, D); None: no sentence
        text_narrow: Tensor | None,  # (Bt, 4 H)
        text_to_frames: Tensor | None,  # (Bt, D)
        base: Tensor,  # (Bv, F, D)
        left: Tensor,  # (Bv, F, H)
        right: Tensor,  # (Bv, F, H)
        values: Tensor,  # (Bv, F, D)
        weight: Tensor,  # (D + O (+ D) + 4 H, D), of FoldedLayer
        frame_weight: Tensor,  # (D, D)
        last_left: Tensor | None,  # of frames, (H, O, H'); None: return nodes
        last_right: Tensor | None,  # of text nodes, (H, O, H')
        frame_mask: Tensor | None,  # (Bv, F)
        drop_text: Tensor | None,  # (Bv, Bt, H, T, O)
        drop_frames: Tensor | None,  # (Bv, Bt, H, F, O)
        options: MessageOptions,
    ) -> tuple[Tensor, Tensor]:
        """Compute text nodes ``(H, Bv Bt, T, O)`` and frames ``(.., F, O)``.

        With ``last_left`` and ``last_right``, return only their products with
        them, ``(Bv Bt, T, H')`` and ``(Bv Bt, F, H')``, in float32 or wider.
        """
        space = options.workspace
        spread = displace(noise, radius, weight.dtype, space)
        videos, texts_a_video, count, width = spread.shape
        size = _Sizes(
            videos,
            texts_a_video,
            count,
            nodes=count + (text_values is not None),
            frames=base.shape[1],
            heads=left.shape[2],
            width=width,
            products=len(weight),
        )
        shape, extra = (size.videos, size.texts), size.nodes - size.candidates

        def result(name: str, *shape: int) -> Tensor:
            if options.reuse:
                return space.empty(name, shape, spread)
            return spread.new_empty(shape)

        flat = spread.view(-1, size.width)
        products = result('products', len(flat), size.products)
        torch.mm(flat, weight.T, out=products)
        narrow = _narrow_logits(products, text_narrow, size)
        text_left, text_right, to_left, to_right = narrow
        if frame_mask is not None:
            frame_mask = frame_mask.view(size.videos, 1, 1, size.frames)
        among = attention_of(text_left, text_right, options.slope)
        from_frames = attention_of(
            to_left.unflatten(1, shape),
            _by_head(right),
            options.slope,
            frame_mask,
        )  # (H, Bv, Bt, T, F)
        to_frames = attention_of(
            _by_head(left), to_right.unflatten(1, shape), options.slope
        )  # (H, Bv, Bt, F, T)
        attentions = (
            among.to(spread.dtype),
            from_frames.flatten(1, 2).to(spread.dtype),
            to_frames.flatten(1, 2).to(spread.dtype),
        )
        among, from_frames, to_frames = attentions
        texts = result(
            'texts', size.heads, size.pairs, size.nodes, size.head_width
        )
        frames = result(
            'frames', size.heads, size.pairs, size.frames, size.head_width
        )
        by_pair = spread.flatten(0, 1)  # (Bv * Bt, N, D)
        by_node = products.view(size.pairs, size.candidates, size.products)
        for head in range(size.heads):
            part, nodes = size.part(head), texts[head]
            weights = among[head][..., extra:]
            if text_values is None:
                torch.bmm(weights, by_node[..., part], out=nodes)
            else:
                # attention sums to one: add the sentence's values once
                by_text = nodes.unflatten(0, shape)
                by_text.copy_(text_values[:, part].unsqueeze(1))
                nodes.baddbmm_(weights, by_node[..., part])
            nodes.view(size.videos, -1, size.head_width).baddbmm_(
                from_frames[head].view(size.videos, -1, size.frames),
                values[..., part],
            )
            nodes[:, extra:] += by_node[..., size.itself]

            nodes, weights = frames[head], to_frames[head][..., extra:]
            if size.projects_first:
                place = size.part(head, size.itself.stop)
                torch.bmm(weights, by_node[..., place], out=nodes)
            else:
                wide = (size.pairs, size.frames, size.width)
                sums = space.empty('sums', wide, spread)
                torch.bmm(weights, by_pair, out=sums)
                torch.mm(
                    sums.flatten(0, 1),
                    frame_weight[part].T,
                    out=nodes.view(-1, size.head_width),
                )
            by_text = nodes.unflatten(0, shape)
            by_text += base[:, None, :, part]
            if text_to_frames is not None:
                by_text += text_to_frames[:, None, part]
        for nodes, mask in ((texts, drop_text), (frames, drop_frames)):
            nodes.relu_()
            if mask is not None:
                nodes.mul_(mask.flatten(0, 1).transpose(0, 1))
        ctx.save_for_backward(
            noise, radius, last_left, last_right, texts, frames, products,
            narrow, left, right, values, weight, frame_weight, *attentions,
        )  # fmt: skip
        ctx.size, ctx.options = size, options
        ctx.scales = [
            1.0 if mask is None else 1.0 / options.kept
            for mask in (drop_text, drop_frames)
        ]
        ctx.has_sentence = text_values is not None
        if last_left is None or last_right is None:
            return texts, frames
        return _last_product(texts, last_right), _last_product(
            frames, last_left
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, text_grad: Tensor, frame_grad: Tensor) -> Any:
        """Accumulate the gradients of all inputs, head by head."""
        (
            noise, radius, last_left, last_right, texts, frames, products,
            narrow, left, right, values, weight, frame_weight, *attentions,
        ) = ctx.saved_tensors  # fmt: skip
        among, from_frames, to_frames = attentions
        size: _Sizes = ctx.size
        space: Workspace = ctx.options.workspace
        slope, (text_scale, frame_scale) = ctx.options.slope, ctx.scales
        shape, extra = (size.videos, size.texts), size.nodes - size.candidates
        spread = displace(noise, radius, weight.dtype, space)
        by_pair = spread.flatten(0, 1)  # (Bv * Bt, N, D)
        by_node = products.view(size.pairs, size.candidates, size.products)
        if radius is None:
            d_spread = torch.empty_like(spread)
        else:
            d_spread = space.empty('d_spread', tuple(spread.shape), spread)
        d_by_pair = d_spread.flatten(0, 1)
        d_by_node = space.empty('d_products', tuple(by_node.shape), spread)
        d_itself = d_by_node[..., size.itself].zero_()
        message = space.empty(
            'message', (*by_node.shape[:2], size.head_width), spread
        )
        d_values, d_base = torch.empty_like(values), torch.empty_like(values)
        d_text_values = spread.new_empty(size.texts, size.width)
        d_text_to_frames = torch.empty_like(d_text_values)
        d_frame_weight = torch.zeros_like(frame_weight)
        # the sentence has no displacement: its column stays zero
        d_among, d_from_frames, d_to_frames = (
            torch.zeros_like(x) for x in attentions
        )
        for head in range(size.heads):
            part = size.part(head)
            # through the messages to text nodes, (Bv * Bt, T, O)
            gradient = _node_gradient(
                text_grad, texts, last_right, head, text_scale, space
            )
            by_video = gradient.view(size.videos, -1, size.head_width)
            torch.sum(
                gradient.unflatten(0, shape),
                (0, 2),
                out=d_text_values[:, part],
            )
            weights = among[head][..., extra:]
            d_among[head][..., extra:] = gradient @ by_node[..., part].mT
            torch.bmm(weights.mT, gradient, out=message)
            d_by_node[..., part] = message
            d_itself += gradient[:, extra:]
            by_frame = (size.videos, -1, size.frames)
            torch.bmm(
                by_video,
                values[..., part].mT,
                out=d_from_frames[head].view(by_frame),
            )
            weights = from_frames[head].view(by_frame)
            d_values[..., part] = weights.mT @ by_video

            # through the messages to frames, (Bv * Bt, F, O)
            gradient = _node_gradient(
                frame_grad, frames, last_left, head, frame_scale, space
            )
            by_text = gradient.unflatten(0, shape)
            d_base[..., part] = by_text.sum(1)
            torch.sum(by_text, (0, 2), out=d_text_to_frames[:, part])
            weights = to_frames[head][..., extra:]
            d_weights = d_to_frames[head][..., extra:]
            if size.projects_first:
                place = size.part(head, size.itself.stop)
                d_weights.copy_(gradient @ by_node[..., place].mT)
                torch.bmm(weights.mT, gradient, out=message)
                d_by_node[..., place] = message
                continue
            wide = (size.pairs, size.frames, size.width)
            sums = space.empty('sums', wide, spread)
            d_sums = space.empty('d_sums', wide, spread)
            torch.bmm(weights, by_pair, out=sums)
            flat = gradient.flatten(0, 1)
            torch.mm(flat.T, sums.flatten(0, 1), out=d_frame_weight[part])
            torch.mm(flat, frame_weight[part], out=d_sums.flatten(0, 1))
            d_weights.copy_(d_sums @ by_pair.mT)
            d_by_pair.baddbmm_(weights.mT, d_sums, beta=int(head > 0))

        text_left, text_right, to_left, to_right = (
            x.unflatten(1, shape) for x in narrow
        )
        d_text_left, d_text_right = _attention_gradient(
            d_among, among, text_left, text_right, slope
        )
        d_to_left, d_right = _attention_gradient(
            d_from_frames, from_frames, to_left, _by_head(right), slope
        )
        d_left, d_to_right = _attention_gradient(
            d_to_frames, to_frames, _by_head(left), to_right, slope
        )
        d_narrow = torch.cat(
            [d_text_left, d_text_right, d_to_left, d_to_right]
        )  # (4 H, Bv, Bt, T)
        d_products = d_by_node.flatten(0, 1)
        d_products[:, -4 * size.heads :] = d_narrow[..., extra:].flatten(1).T
        d_by_pair.flatten(0, 1).addmm_(
            d_products, weight, beta=int(not size.projects_first)
        )
        d_weight = d_products.T @ by_pair.flatten(0, 1)
        d_radius = None
        if radius is not None:
            d_radius = torch.mul(d_spread, noise, out=d_spread).sum(2)
            d_radius = d_radius.to(radius.dtype)
        return (
            d_spread if radius is None else None,
            d_radius,
            d_text_values if ctx.has_sentence else None,
            d_narrow.sum((1, 3)).T if ctx.has_sentence else None,
            d_text_to_frames if ctx.has_sentence else None,
            d_base,
            d_left.sum(2).permute(1, 2, 0),
            d_right.sum(2).permute(1, 2, 0),
            d_values,
            d_weight,
            d_frame_weight,
            _last_weight_gradient(frame_grad, frames, last_left),
            _last_weight_gradient(text_grad, texts, last_right),
            *[None] * 4,
        )


def displace(
    noise: Tensor,
    radius: Tensor | None,
    dtype: torch.dtype,
    space: Workspace | None = None,
) -> Tensor:
    """Contiguous displacements of the candidates, ``(Bv, Bt, N, D)``.

    Without a radius, ``noise`` holds the nodes. Workspaces give no gradient.
    """
    if radius is None:
        return noise.to(dtype).contiguous()
    if space is None:
        return (noise * radius.unsqueeze(2)).to(dtype)
    shape = (*radius.shape[:2], *noise.shape[-2:])
    out = space.empty('spread', shape, radius, dtype)
    return torch.mul(noise, radius.unsqueeze(2), out=out)


def attention_of(
    rows: Tensor, columns: Tensor, slope: float, mask: Tensor | None = None
) -> Tensor:
    """Attention weights ``(.., N, M)`` from row and column logits."""
    # the sum of broadcast tensors may be non-contiguous
    logits = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).contiguous()
    F.leaky_relu_(logits, slope)  # (..., N, M)
    if mask is not None:
        columns = columns.masked_fill(~mask.squeeze(-2), float('-inf'))
        logits.masked_fill_(~mask, float('-inf'))
    # leaky ReLU is monotonic, so the largest column logit gives the row
    # maximum; torch's softmax is slow over so few columns
    largest = F.leaky_relu(rows + columns.amax(dim=-1, keepdim=True), slope)
    logits.sub_(largest.unsqueeze(-1)).exp_()
    return logits.div_(logits.sum(dim=-1, keepdim=True))


def _attention_gradient(
    gradient: Tensor,
    attention: Tensor,
    rows: Tensor,
    columns: Tensor,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows and columns of :func:`attention_of`."""
    logits = rows.unsqueeze(-1) + columns.unsqueeze(-2)  # (H, Bv, Bt, N, M)
    gradient = torch._softmax_backward_data(
        gradient.view(logits.shape).to(rows.dtype),
        attention.view(logits.shape).to(rows.dtype),
        -1,
        rows.dtype,
    )
    gradient = torch.where(logits > 0, gradient, gradient * slope)
    return gradient.sum(dim=-1), gradient.sum(dim=-2)


def _by_head(logits: Tensor) -> Tensor:
    """Reshape frame logits ``(Bv, F, H)`` to ``(H, Bv, 1, F)``."""
    return logits.permute(2, 0, 1).unsqueeze(2)


def _narrow_logits(
    products: Tensor, text_narrow: Tensor | None, size: _Sizes
) -> Tensor:
    """Logits of the text nodes, ``(4, H, Bv * Bt, T)``."""
    wide = torch.promote_types(products.dtype, torch.float32)
    own = products[:, -4 * size.heads :].t().to(wide)
    own = own.unflatten(1, (size.videos, size.texts, size.candidates))
    if text_narrow is not None:
        sentence = text_narrow.t().to(wide)[:, None, :, None]
        own = F.pad(own, (1, 0)) + sentence
    return own.reshape(4, size.heads, size.pairs, size.nodes)


def _last_product(nodes: Tensor, weight: Tensor) -> Tensor:
    """Project nodes ``(H, B, N, O)`` to ``(B, N, H')``, summed over heads."""
    products = torch.bmm(nodes.flatten(1, 2), weight)
    wide = torch.promote_types(products.dtype, torch.float32)
    return products.sum(dim=0, dtype=wide).unflatten(0, nodes.shape[1:3])


def _last_weight_gradient(
    gradient: Tensor, nodes: Tensor, weight: Tensor | None
) -> Tensor | None:
    """Gradient of the weight of :func:`_last_product`."""
    if weight is None:
        return None
    gradient = gradient.flatten(0, 1).to(nodes.dtype)
    return (gradient.T @ nodes.flatten(1, 2)).mT


def _node_gradient(
    gradient: Tensor,
    nodes: Tensor,
    weight: Tensor | None,
    head: int,
    scale: float,
    space: Workspace,
) -> Tensor:
    """Gradient of a head before ReLU and dropout, ``(B, N, O)``.

    Entries that ReLU or dropout set to zero are zero in ``nodes``.
    """
    own = nodes[head]
    result = space.empty(f'gradient of {own.shape[1]}', own.shape, own)
    if weight is None:
        torch.mul(gradient[head], scale, out=result)
    else:
        torch.mm(
            gradient.flatten(0, 1).to(own.dtype),
            weight[head].T * scale,
            out=result.view(-1, own.shape[-1]),
        )
    return torch.ops.aten.threshold_backward.grad_input(
        result, own, 0, grad_input=result
    )
