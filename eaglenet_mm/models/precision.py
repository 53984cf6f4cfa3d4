"""Operations in at least float32, regardless of autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; keep wider types."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def float32_layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm in float32 or wider, with weights cast to it."""
    x = at_least_float32(x)
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(
            x,
            norm.normalized_shape,
            norm.weight.to(x.dtype),
            norm.bias.to(x.dtype),
            norm.eps,
        )
