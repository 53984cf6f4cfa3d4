"""Parts shared by the text-frame graphs: folded logits and their softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.precision import at_least_float32


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
        vectors = torch.stack([self.left, self.right])
        left, right = (vectors @ self.head_weights()).unbind(dim=1)
        return left, right

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


def attention_of(
    rows: Tensor, columns: Tensor, slope: float, mask: Tensor | None = None
) -> Tensor:
    """Softmax over the columns of leaky ReLU of sums, in float32 or wider.

    Args:
        rows (Tensor): Shape ``(..., N)``.
        columns (Tensor): Shape ``(..., M)``.
        slope (float): Of the leaky ReLU, not negative.
        mask (Tensor, optional): True for columns that count, shape
            ``(..., 1, M)``.

    Returns:
        Tensor: Shape ``(..., N, M)``.
    """
    # the sum of broadcast tensors need not be contiguous by itself
    logits = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).contiguous()
    F.leaky_relu_(logits, slope)
    if mask is not None:
        columns = columns.masked_fill(~mask.squeeze(-2), float('-inf'))
        logits.masked_fill_(~mask, float('-inf'))
    # rising with its argument, the leaky ReLU has its largest value where the
    # columns have; torch's own softmax is slow over so few columns
    largest = F.leaky_relu(rows + columns.amax(dim=-1, keepdim=True), slope)
    logits.sub_(largest.unsqueeze(-1)).exp_()
    return logits.div_(logits.sum(dim=-1, keepdim=True))


def attention_backward(
    gradient: Tensor,
    attention: Tensor,
    rows: Tensor,
    columns: Tensor,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Gradient of :func:`attention_of`.

    Returns:
        tuple[Tensor, Tensor]: Of the rows and of the columns.
    """
    gradient = torch._softmax_backward_data(
        gradient.to(rows.dtype), attention.to(rows.dtype), -1, rows.dtype
    )
    logits = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    gradient = torch.where(logits > 0, gradient, gradient * slope)
    return gradient.sum(dim=-1), gradient.sum(dim=-2)


def masked_softmax(logits: Tensor, column_mask: Tensor | None) -> Tensor:
    """Take the softmax over the columns that count.

    Args:
        logits (Tensor): Shape ``(..., H, N, M)``.
        column_mask (Tensor, optional): True for columns that count, shape
            ``(..., M)`` with the leading axes of the logits.

    Returns:
        Tensor: In the type of the logits, computed in float32 or wider.
    """
    dtype, logits = logits.dtype, at_least_float32(logits)
    if column_mask is not None:
        mask = column_mask.unsqueeze(-2).unsqueeze(-2)
        logits = logits.masked_fill(~mask, float('-inf'))
    return logits.softmax(dim=-1).to(dtype)


def mean_over_frames(logits: Tensor, frame_mask: Tensor | None) -> Tensor:
    """Average logits over heads and real frames.

    Args:
        logits (Tensor): Shape ``(Bv, Bt, H, F, T)``.
        frame_mask (Tensor, optional): Shape ``(Bv, F)``.

    Returns:
        Tensor: Shape ``(Bv, Bt, T)``.
    """
    logits = at_least_float32(logits).mean(dim=2)
    if frame_mask is None:
        return logits.mean(dim=2)
    share = frame_mask / frame_mask.sum(dim=-1, keepdim=True)
    with torch.autocast(logits.device.type, enabled=False):
        return torch.einsum('vtfk,vf->vtk', logits, share.to(logits.dtype))


def product_type(x: Tensor) -> torch.dtype:
    """Type of large products: that of autocast if it is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def pad_sentence(nodes: Tensor) -> Tensor:
    """Put a zero, the displacement of the sentence, before ``(..., S, C)``."""
    return F.pad(nodes, (0, 0, 1, 0))


def check_dropout(rate: float) -> None:
    """Refuse a rate of dropout that is no probability below 1."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(
            f'dropout must be at least 0 and below 1, but is {rate}.'
        )
