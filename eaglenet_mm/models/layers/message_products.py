"""What text nodes and frames send each other, products alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.layers.workspace import Workspace


class MessageOptions(NamedTuple):
    """What the messages of a layer need besides tensors.

    Args:
        slope (float): Negative slope of the leaky ReLU of the logits.
        kept (float): Share of the entries that dropout keeps.
        workspace (Workspace): Memory of what does not outlive the call.
        reuse (bool): Take also the results from the workspace. Not in
            training, where they are kept for the backward pass.
    """

    slope: float
    kept: float
    workspace: Workspace
    reuse: bool


class MessageSizes(NamedTuple):
    """Sizes of a chunk of pairs."""

    videos: int
    texts: int
    num_candidates: int  # displaced candidates N
    nodes: int  # text nodes T, N or 1 + N
    frames: int
    heads: int
    width: int
    products: int  # numbers a candidate is multiplied to

    @property
    def projects_first(self) -> bool:
        """Whether candidates are projected before frames add them up."""
        narrow = self.width + self.head_width + 4 * self.heads
        return self.products > narrow

    @property
    def pairs(self) -> int:
        """Pairs of the chunk."""
        return self.videos * self.texts

    @property
    def head_width(self) -> int:
        """Width ``O`` of a head."""
        return self.width // self.heads

    def part(self, head: int) -> slice:
        """Place of a head in the width."""
        return slice(head * self.head_width, (head + 1) * self.head_width)


def displace(
    noise: Tensor,
    radius: Tensor | None,
    dtype: torch.dtype,
    space: Workspace | None = None,
) -> Tensor:
    """Displace candidates from their sentence.

    Args:
        noise (Tensor): Shape ``(S, D)`` or ``(Bv, Bt, S, D)``; the nodes of
            the latter shape themselves if there is no radius.
        radius (Tensor, optional): Shape ``(Bv, Bt, D)``.
        dtype (torch.dtype): Type of the result.
        space (Workspace, optional): Where the result lies; then there is no
            gradient.

    Returns:
        Tensor: Contiguous, shape ``(Bv, Bt, S, D)``.
    """
    if radius is None:
        return noise.to(dtype).contiguous()
    if space is None:
        return (noise * radius.unsqueeze(2)).to(dtype)
    shape = (*radius.shape[:2], *noise.shape[-2:])
    out = space.empty('spread', shape, radius, dtype)
    return torch.mul(noise, radius.unsqueeze(2), out=out)


def by_head(logits: Tensor) -> Tensor:
    """Bring logits of frames ``(Bv, F, H)`` to ``(H, Bv, 1, F)``."""
    return logits.permute(2, 0, 1).unsqueeze(2)


def narrow_logits(
    products: Tensor, text_narrow: Tensor | None, size: MessageSizes
) -> Tensor:
    """Logits of the text nodes, shape ``(4, H, Bv * Bt, T)``."""
    wide = torch.promote_types(products.dtype, torch.float32)
    own = products[:, -4 * size.heads :].t().to(wide)
    own = own.unflatten(1, (size.videos, size.texts, size.num_candidates))
    if text_narrow is not None:
        sentence = text_narrow.t().to(wide)[:, None, :, None]
        own = F.pad(own, (1, 0)) + sentence
    return own.reshape(4, size.heads, size.pairs, size.nodes)


def send_to_texts(
    texts: Tensor,
    products: Tensor,
    text_values: Tensor | None,
    values: Tensor,
    weights: list[Tensor],
    size: MessageSizes,
) -> None:
    """Fill in what the text nodes receive."""
    by_pair = products.view(size.pairs, size.num_candidates, size.products)
    itself = by_pair[..., size.width : size.width + size.head_width]
    extra = size.nodes - size.num_candidates
    for head in range(size.heads):
        nodes, part = texts[head], size.part(head)
        among = weights[0][head][..., extra:]
        if text_values is None:
            torch.bmm(among, by_pair[..., part], out=nodes)
        else:
            # attention sums to one, so the sentence itself is a constant
            by_text = nodes.unflatten(0, (size.videos, size.texts))
            by_text.copy_(text_values[:, part].unsqueeze(1))
            nodes.baddbmm_(among, by_pair[..., part])
        nodes.view(
            size.videos, size.texts * size.nodes, size.head_width
        ).baddbmm_(
            weights[1][head].view(size.videos, -1, size.frames),
            values[..., part],
        )
        nodes[:, extra:] += itself


def send_to_frames(
    frames: Tensor,
    spread: Tensor,
    products: Tensor,
    text_to_frames: Tensor | None,
    base: Tensor,
    frame_weight: Tensor,
    attention: Tensor,
    size: MessageSizes,
    space: Workspace,
) -> None:
    """Fill in what the frames receive."""
    extra = size.nodes - size.num_candidates
    wide = size.width + size.head_width
    by_pair = spread.view(size.pairs, size.num_candidates, size.width)
    projected = products.view(size.pairs, size.num_candidates, size.products)[
        ..., wide:
    ]
    for head in range(size.heads):
        nodes, part = frames[head], size.part(head)
        weights = attention[head][..., extra:]
        if size.projects_first:
            torch.bmm(weights, projected[..., part], out=nodes)
        else:
            sums = space.empty(
                'sums', (size.pairs, size.frames, size.width), spread
            )
            torch.bmm(weights, by_pair, out=sums)
            torch.mm(
                sums.view(-1, size.width),
                frame_weight[part].T,
                out=nodes.view(-1, size.head_width),
            )
        by_text = nodes.unflatten(0, (size.videos, size.texts))
        by_text += base[:, None, :, part]
        if text_to_frames is not None:
            by_text += text_to_frames[:, None, part]


def last_product(nodes: Tensor, weight: Tensor) -> Tensor:
    """Multiply nodes ``(H, B, N, O)`` to ``(B, N, H')``, over all heads."""
    products = torch.bmm(nodes.flatten(1, 2), weight)
    wide = torch.promote_types(products.dtype, torch.float32)
    return products.sum(dim=0, dtype=wide).unflatten(0, nodes.shape[1:3])


def last_product_gradient(
    gradient: Tensor, nodes: Tensor, weight: Tensor | None
) -> Tensor | None:
    """Gradient of the weight of :func:`last_product`."""
    if weight is None:
        return None
    gradient = gradient.flatten(0, 1).to(nodes.dtype)
    return (gradient.T @ nodes.flatten(1, 2)).mT


def node_gradient(
    gradient: Tensor,
    nodes: Tensor,
    weight: Tensor | None,
    head: int,
    scale: float,
    space: Workspace,
) -> Tensor:
    """Gradient of one head before ReLU and dropout, ``(B, N, O)``.

    What was dropped is zero behind the ReLU, as is what the ReLU has cut off.
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
