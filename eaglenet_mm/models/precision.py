"""Sums, softmax and norms in float32, whatever autocast says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Lift half-precision numbers to float32; wider ones stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def float32_layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalise in float32 or wider, with the weights in the type of ``x``."""
    x = at_least_float32(x)
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(
            x,
            norm.normalized_shape,
            norm.weight.to(x.dtype),
            norm.bias.to(x.dtype),
            norm.eps,
        )
