"""Parts shared by the text-frame graphs: folded logits and their softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import KeyedRandom


class AttentionProjection(nn.Module):
    """Projection of nodes with the two attention vectors of a relation.

    A node ``x`` has the values ``h = W x``, in ``H`` heads of width ``O``,
    and the logits ``left . h`` as a row and ``right . h`` as a column. The
    vectors are shared by the heads. Since ``a . (W_h x) = (W_h^T a) . x``,
    logits need no values: one narrow product gives them.

    Args:
        in_width (int): Width ``C`` of a node.
        head_width (int): Width ``O`` of a head.
        num_heads (int): Heads ``H``.
    """

    def __init__(self, in_width: int, head_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(in_width, num_heads * head_width, bias=False)
        self.left = nn.Parameter(torch.empty(head_width))
        self.right = nn.Parameter(torch.empty(head_width))
        bound = head_width**-0.5  # as nn.Linear(head_width, 1)
        nn.init.uniform_(self.left, -bound, bound)
        nn.init.uniform_(self.right, -bound, bound)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Fold both vectors into the projection, each ``(H, C)``."""
        weight = self.project.weight.unflatten(0, (self.num_heads, -1))
        return (
            torch.einsum('hoc,o->hc', weight, self.left),
            torch.einsum('hoc,o->hc', weight, self.right),
        )

    def split_heads(self, values: Tensor) -> Tensor:
        """Bring projected nodes ``(..., N, H * O)`` to ``(..., H, N, O)``."""
        return values.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)

    def head_weights(self) -> Tensor:
        """Projection of every head, shape ``(H, O, C)``."""
        return self.project.weight.unflatten(0, (self.num_heads, -1))


def pair_logits(left: Tensor, right: Tensor, slope: float) -> Tensor:
    """Combine row and column logits.

    Args:
        left (Tensor): Of the rows, shape ``(..., N, H)``.
        right (Tensor): Of the columns, shape ``(..., M, H)``.
        slope (float): Negative slope of the leaky ReLU; 1 for none.

    Returns:
        Tensor: Shape ``(..., H, N, M)``.
    """
    logits = left.transpose(-1, -2).unsqueeze(-1) + right.transpose(
        -1, -2
    ).unsqueeze(-2)
    return logits if slope == 1.0 else F.leaky_relu(logits, slope)


def masked_softmax(logits: Tensor, column_mask: Tensor | None) -> Tensor:
    """Take the softmax over the columns that count.

    Args:
        logits (Tensor): Shape ``(..., H, N, M)``.
        column_mask (Tensor, optional): True for columns that count, shape
            ``(..., M)`` with the leading axes of the logits.
    """
    if column_mask is not None:
        mask = column_mask.unsqueeze(-2).unsqueeze(-2)
        logits = logits.masked_fill(~mask, float('-inf'))
    return logits.softmax(dim=-1)


def mean_over_frames(logits: Tensor, frame_mask: Tensor | None) -> Tensor:
    """Average logits over heads and real frames.

    Args:
        logits (Tensor): Shape ``(Bt, Bv, H, F, T)``.
        frame_mask (Tensor, optional): Shape ``(Bv, F)``.

    Returns:
        Tensor: Shape ``(Bt, Bv, T)``.
    """
    logits = logits.mean(dim=2)
    if frame_mask is None:
        return logits.mean(dim=2)
    share = frame_mask / frame_mask.sum(dim=-1, keepdim=True)
    return torch.einsum('tvfk,vf->tvk', logits, share.to(logits.dtype))


class GraphDropout:
    """Dropout of hidden nodes with keyed random numbers.

    Args:
        random (KeyedRandom): Source of the masks.
        rows (range): Texts of the chunk, as rows of the joint batch.
        columns (slice): Videos of the chunk among ``num_videos``.
        num_videos (int): Videos of the joint batch.
        rate (float): Probability of zero.
    """

    def __init__(
        self,
        random: KeyedRandom,
        rows: range,
        columns: slice,
        num_videos: int,
        rate: float,
    ) -> None:
        self.random = random
        self.rows = rows
        self.columns = columns
        self.num_videos = num_videos
        self.rate = rate

    def __call__(self, nodes: Tensor, purpose: str) -> Tensor:
        """Drop entries of nodes of shape ``(Bt, Bv, ...)``."""
        mask = self.random.keep_mask(
            purpose,
            self.rows,
            (self.num_videos, *nodes.shape[2:]),
            self.rate,
            nodes,
        )
        return nodes if mask is None else nodes * mask[:, self.columns]
