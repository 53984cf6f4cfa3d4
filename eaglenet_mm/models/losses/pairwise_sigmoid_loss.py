"""The sigmoid loss on all pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.models.losses.reductions import at_least_float32, check_square
from eaglenet_mm.registry import MODELS


@MODELS.register_module()
class PairwiseSigmoidLoss(BaseModule):
    """Classify every pair as matching or not.

    The loss of `SigLIP <https://arxiv.org/abs/2303.15343>`_ with EagleNet's
    start values::

        -1/B sum_ij log sigmoid(y_ij (exp(log_scale) s_ij + bias))

    with ``y = 1`` on the diagonal and ``-1`` elsewhere.

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
    """

    def __init__(
        self,
        init_log_scale: float = 4.77,
        init_bias: float = -12.93,
        learnable: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.log_scale = nn.Parameter(
            torch.tensor([init_log_scale]), requires_grad=learnable
        )
        self.bias = nn.Parameter(
            torch.tensor([init_bias]), requires_grad=learnable
        )

    def logits(self, scores: Tensor) -> Tensor:
        """Scale and shift scores, same shape."""
        return scores * self.log_scale.exp() + self.bias

    def forward(self, scores: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            scores (Tensor): Rows are texts, columns videos, matching pairs on
                the diagonal, shape ``(B, B)``.

        Returns:
            Tensor: A scalar.

        Raises:
            ValueError: If the matrix is not square.
        """
        check_square(scores)
        logits = self.logits(at_least_float32(scores))
        sign = torch.full_like(logits, -1.0).fill_diagonal_(1.0)
        loss = -F.logsigmoid(sign * logits).sum() / len(scores)
        return self.loss_weight * loss
