"""Symmetric InfoNCE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from eaglenet_mm.models.losses.joint_batch import (
    PairLabels,
    ScoreLoss,
    row_blocks,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS


class _CrossEntropies(Function):
    """Mean cross entropy of rows and of columns of the joint matrix.

    Works on own rows by blocks and keeps the scores alone. A process needs no
    rows of others: what they add to the sums of the columns is reduced.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, log_scale: Tensor, labels: PairLabels
    ) -> Tensor:
        share, scale = labels.share, log_scale.exp()
        like = at_least_float32(scores[:0]) * scale
        # a sum of exponentials is kept as its largest exponent and the rest
        row_top, row_sum = like.new_empty(2, len(scores))
        column_top, column_sum = like.new_zeros(2, scores.shape[1])
        column_top.fill_(torch.finfo(like.dtype).min)
        # mean logit of the positives
        row_mean = like.new_empty(len(scores))
        column_mean, column_count = like.new_zeros(2, scores.shape[1])
        row_count = like.new_ones(len(scores))
        for rows, logits, positive in _blocks(scores, scale, labels):
            if positive is None:
                row_mean[rows] = share.matching(logits, rows)
            else:
                matched = logits.masked_fill(~positive, 0.0)
                row_count[rows] = positive.sum(dim=1).to(like.dtype)
                row_mean[rows] = matched.sum(dim=1) / row_count[rows]
                column_count += positive.sum(dim=0)
                column_mean += matched.sum(dim=0)
            row_top[rows] = top = logits.amax(dim=1)
            row_sum[rows] = (logits - top.unsqueeze(1)).exp_().sum(dim=1)
            top = torch.maximum(column_top, logits.amax(dim=0))
            column_sum *= (column_top - top).exp_()
            column_sum += (logits - top).exp_().sum(dim=0)
            column_top = top
        if labels.is_multiple:
            column_mean, column_count = share.sum(
                torch.stack([column_mean, column_count])
            )
            column_mean /= column_count
        else:
            column_mean = share.gather(row_mean)
            column_count = torch.ones_like(column_mean)
        parts = share.gather(
            torch.stack([column_top, column_sum]).unsqueeze(0)
        )
        tops, sums = parts.unbind(dim=1)  # (processes, B)
        column_top = tops.amax(dim=0)
        column_sum = ((tops - column_top).exp() * sums).sum(dim=0)
        ctx.labels = labels
        ctx.save_for_backward(
            scores,
            log_scale,
            torch.stack([row_top, row_sum.log(), 1 / row_count]),
            torch.stack([column_top, column_sum.log(), 1 / column_count]),
        )
        # differences first: the loss is small where both are large
        of_rows = share.gather((row_top - row_mean) + row_sum.log())
        of_columns = (column_top - column_mean) + column_sum.log()
        return (of_rows.mean() + of_columns.mean()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, log_scale, row_parts, column_parts = ctx.saved_tensors
        labels, scale = ctx.labels, log_scale.exp()
        row_top, row_log, row_share = row_parts.unsqueeze(-1)
        column_top, column_log, column_share = column_parts
        # as in gathering, the gradients of all processes meet
        factor = labels.share.sum(gradient) / (2 * scores.shape[1])
        by_scores = torch.empty_like(scores)
        by_log_scale = torch.zeros_like(scale)
        for rows, logits, positive in _blocks(scores, scale, labels):
            slopes = ((logits - row_top[rows]) - row_log[rows]).exp_()
            slopes += ((logits - column_top) - column_log).exp_()
            if positive is None:
                labels.share.matching(slopes, rows).sub_(2.0)
            else:
                shares = row_share[rows] + column_share  # (n, B)
                slopes -= shares.masked_fill_(~positive, 0.0)
            slopes *= factor
            block = at_least_float32(scores[rows])
            by_log_scale += (slopes * block).sum() * scale
            by_scores[rows] = slopes.mul_(scale)
        needed = ctx.needs_input_grad
        return (
            by_scores if needed[0] else None,
            by_log_scale if needed[1] else None,
            None,
        )


def _blocks(
    scores: Tensor, scale: Tensor, labels: PairLabels
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Go through rows, their logits (ignored: -inf) and their positives."""
    for rows in row_blocks(scores):
        logits = at_least_float32(scores[rows]) * scale
        ignored = labels.ignored(rows)
        if ignored is not None:
            logits.masked_fill_(ignored, float('-inf'))
        yield rows, logits, labels.positive(rows)


@MODELS.register_module()
class InfoNCELoss(ScoreLoss):
    r"""Cross entropy of the rows and of the columns, averaged.

    The loss of `CLIP <https://arxiv.org/abs/2103.00020>`_ on
    ``l = scores * exp(log_scale)`` with matching pairs on the diagonal::

        -1/2B sum_i log(exp(l_ii) / sum_j exp(l_ij)) + the same of columns

    Pairs off the diagonal that are of the same video count by
    ``same_video``:

    - ``'negative'``: like all others, as in the releases.
    - ``'ignore'``: they are left out of the sums over ``j``.
    - ``'positive'``: each text has the set ``P(i)`` of all pairs of its
      video, and the mean of their logarithms counts, as in `supervised
      contrastive learning <https://arxiv.org/abs/2004.11362>`_ (``L_out``;
      its sum over ``j`` holds the positives too)::

        -1/2B sum_i 1/|P(i)| sum_{p in P(i)} log(exp(l_ip) / sum_j exp(l_ij))

    Differs from the releases of this field: the scale belongs to the loss,
    not to CLIP, so it has the learning rate of the head. For theirs, add
    ``dict(pattern=r'^head\.loss_match\.log_scale$', lr_mult=1e-3)`` to the
    rules of ``paramwise_cfg``.

    Args:
        init_scale (float): Start of the scale. Default: 100, which is where
            the released CLIP weights stand.
        max_scale (float): Upper bound of the scale, kept by
            ``LogitScaleClampHook``. Default: 100.
        learnable (bool): Whether the scale is learnt. Default: True.
        loss_weight (float): Factor of the loss. Default: 1.
        same_video (str): What other pairs of the same video count as,
            ``'negative'``, ``'ignore'`` or ``'positive'``. Default:
            ``'negative'``.

    Raises:
        ValueError: If a scale is not positive, or ``same_video`` is none of
            these.

    Note:
        Beside the scores, and in the backward pass their gradient, it takes
        memory for a block of rows only.

    Example:
        >>> scores = torch.rand(4, 4)
        >>> InfoNCELoss()(scores).shape
        torch.Size([])
        >>> ids = torch.tensor([7, 8, 7, 9])  # two captions of video 7
        >>> loss = InfoNCELoss(same_video='ignore')(scores, ids)
    """

    def __init__(
        self,
        init_scale: float = 100.0,
        max_scale: float = 100.0,
        learnable: bool = True,
        loss_weight: float = 1.0,
        same_video: str = 'negative',
    ) -> None:
        super().__init__(loss_weight, same_video)
        if init_scale <= 0 or max_scale <= 0:
            raise ValueError(
                'The scales of InfoNCELoss are positive, but got '
                f'init_scale={init_scale} and max_scale={max_scale}.'
            )
        self.max_log_scale = math.log(max_scale)
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(init_scale)), requires_grad=learnable
        )

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the scale back under its bound."""
        self.log_scale.clamp_(max=self.max_log_scale)

    def logits(self, scores: Tensor) -> Tensor:
        """Scale scores, same shape."""
        return scores * self.log_scale.exp()

    def joint_loss(self, scores: Tensor, labels: PairLabels) -> Tensor:
        """Average the cross entropies of rows and columns."""
        return _CrossEntropies.apply(scores, self.log_scale, labels)
