"""The sigmoid loss on all pairs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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


class _SigmoidSum(Function):
    """``-sum log sigmoid(y (scale s + bias))`` of own rows, by blocks.

    Autograd would keep the logits, their signs and two more matrices; this
    keeps the scores alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        log_scale: Tensor,
        bias: Tensor,
        labels: PairLabels,
    ) -> Tensor:
        ctx.save_for_backward(scores, log_scale, bias)
        ctx.labels = labels
        parts = []
        for rows in row_blocks(scores):
            block = at_least_float32(scores[rows])
            logits = _signed_(block * log_scale.exp() + bias, labels, rows)
            terms = F.logsigmoid(logits)
            ignored = labels.ignored(rows)
            if ignored is not None:
                terms.masked_fill_(ignored, 0.0)
            parts.append(terms.sum())
        return -torch.stack(parts).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, log_scale, bias = ctx.saved_tensors
        labels, scale = ctx.labels, log_scale.exp()
        by_scores = torch.empty_like(scores)
        by_log_scale, by_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        for rows in row_blocks(scores):
            block = at_least_float32(scores[rows])
            logits = _signed_(block * scale + bias, labels, rows)
            slopes = torch.sigmoid(logits.neg_()).mul_(-gradient)
            slopes = _signed_(slopes, labels, rows)
            ignored = labels.ignored(rows)
            if ignored is not None:
                slopes.masked_fill_(ignored, 0.0)
            by_bias += slopes.sum()
            by_log_scale += (slopes * block).sum() * scale
            by_scores[rows] = slopes.mul_(scale)
        needed = ctx.needs_input_grad
        return (
            by_scores if needed[0] else None,
            by_log_scale if needed[1] else None,
            by_bias if needed[2] else None,
            None,
        )


def _signed_(x: Tensor, labels: PairLabels, rows: slice) -> Tensor:
    """Multiply rows by 1 for positives and -1 for others, in place."""
    positive = labels.positive(rows)
    if positive is not None:
        return torch.where(positive, x, -x)
    x.neg_()
    labels.share.matching(x, rows).neg_()
    return x


@MODELS.register_module()
class PairwiseSigmoidLoss(ScoreLoss):
    """Classify every pair as matching or not.

    The loss of `SigLIP <https://arxiv.org/abs/2303.15343>`_ with EagleNet's
    start values::

        -1/B sum_ij log sigmoid(y_ij (exp(log_scale) s_ij + bias))

    with ``y = 1`` on the diagonal and ``-1`` elsewhere. Pairs off the diagonal
    that are of the same video count by ``same_video``:

    - ``'negative'``: ``y = -1``, as in the release.
    - ``'ignore'``: they are left out of the sum.
    - ``'positive'``: ``y = 1``.

    ``B`` is the number of texts in all of them.

    Differs from the release: ``log sigmoid`` is computed in its stable form.
    The release's ``log(sigmoid(x))`` is infinite below -88, with a NaN
    gradient, which a negative pair of similarity 0.86 reaches at the start
    values.

    Args:
        init_log_scale (float): Start of the logarithm of the scale.
            Default: 4.77.
        init_bias (float): Start of the bias. Default: -12.93.
        learnable (bool): Whether both are learnt. Default: True.
        loss_weight (float): Factor of the loss. Default: 1.
        same_video (str): What other pairs of the same video count as,
            ``'negative'``, ``'ignore'`` or ``'positive'``. Default:
            ``'negative'``.

    Raises:
        ValueError: If ``same_video`` is none of these.

    Note:
        Beside the scores, and in the backward pass their gradient, it takes
        memory for a block of rows only.

    Example:
        >>> scores = torch.rand(4, 4)
        >>> PairwiseSigmoidLoss()(scores).shape
        torch.Size([])
        >>> ids = torch.tensor([7, 8, 7, 9])  # two captions of video 7
        >>> loss = PairwiseSigmoidLoss(same_video='ignore')(scores, ids)
    """

    def __init__(
        self,
        init_log_scale: float = 4.77,
        init_bias: float = -12.93,
        learnable: bool = True,
        loss_weight: float = 1.0,
        same_video: str = 'negative',
    ) -> None:
        super().__init__(loss_weight, same_video)
        self.log_scale = nn.Parameter(
            torch.tensor([init_log_scale]), requires_grad=learnable
        )
        self.bias = nn.Parameter(
            torch.tensor([init_bias]), requires_grad=learnable
        )

    def logits(self, scores: Tensor) -> Tensor:
        """Scale and shift scores, same shape."""
        return scores * self.log_scale.exp() + self.bias

    def joint_loss(self, scores: Tensor, labels: PairLabels) -> Tensor:
        """Sum over all pairs, divided by the number of texts."""
        own = _SigmoidSum.apply(scores, self.log_scale, self.bias, labels)
        return labels.share.sum(own) / scores.shape[1]
