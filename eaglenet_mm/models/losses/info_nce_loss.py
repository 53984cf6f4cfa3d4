"""Symmetric InfoNCE."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.models.losses.reductions import at_least_float32, check_square
from eaglenet_mm.registry import MODELS


@MODELS.register_module()
class InfoNCELoss(BaseModule):
    r"""Cross entropy of the rows and of the columns, averaged.

    The loss of `CLIP <https://arxiv.org/abs/2103.00020>`_ on
    ``scores * exp(log_scale)`` with matching pairs on the diagonal.

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

    Raises:
        ValueError: If a scale is not positive.
    """

    def __init__(
        self,
        init_scale: float = 100.0,
        max_scale: float = 100.0,
        learnable: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if init_scale <= 0 or max_scale <= 0:
            raise ValueError(
                'The scales of InfoNCELoss are positive, but got '
                f'init_scale={init_scale} and max_scale={max_scale}.'
            )
        self.max_log_scale = math.log(max_scale)
        self.loss_weight = loss_weight
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
        target = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, target) + F.cross_entropy(
            logits.T, target
        )
        return self.loss_weight * loss / 2
