"""How far float32 and half precision may be from float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.models.every_head import build, features
from tests.models.tiny import random_features

#: Of a score, absolute; of a loss and of a gradient, relative.
ERRORS = {
    torch.float32: (1e-6, 1e-5, 1e-4),
    torch.float16: (1e-3, 1e-3, 2e-2),
    torch.bfloat16: (5e-3, 5e-3, 0.1),
}


def outcome(
    head: Any, device: torch.device, dtype: torch.dtype, low: bool
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Scores, losses and gradients of a head, in float64 on the CPU.

    Args:
        head: Freshly built, in evaluation mode.
        device (torch.device): Where it computes.
        dtype (torch.dtype): Of its weights and features, or of autocast.
        low (bool): Whether ``dtype`` is that of autocast over float32.
    """
    wide = torch.float32 if low else dtype
    head.to(device, wide)
    text, video = (x.to(device) for x in random_features(4, 4, dtype=wide))
    with torch.autocast(device.type, dtype=dtype, enabled=low):
        with torch.no_grad():
            scores = head(text, video)
        losses = head.train().loss(text, video)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    gradients = {
        name: parameter.grad.double().cpu()
        for name, parameter in head.named_parameters()
    }
    losses = {key: value.double().cpu() for key, value in losses.items()}
    return scores.double().cpu(), losses, gradients


def check_against_float64(
    build_head: Callable[[], Any], dtype: torch.dtype, device: torch.device
) -> None:
    """Hold scores, losses and gradients to the bounds of their type.

    Args:
        build_head (Callable): Builds the same head each time.
        dtype (torch.dtype): Float32, or the type of autocast.
        device (torch.device): Where the head computes; float64 is computed
            on the CPU.
    """
    scores, losses, gradients = outcome(
        build_head(), torch.device('cpu'), torch.float64, low=False
    )
    low = dtype is not torch.float32
    got = outcome(build_head(), device, dtype, low=low)
    of_score, of_loss, of_gradient = ERRORS[dtype]
    assert (got[0] - scores).abs().max() < of_score
    for key, value in losses.items():
        error = of_loss if 'loss' in key else of_score
        scale = abs(value.item()) if 'loss' in key else 1.0
        assert abs(got[1][key].item() - value.item()) < error * scale, key
    largest = max(float(x.norm()) for x in gradients.values())
    for key, value in gradients.items():
        scale = max(float(value.norm()), 0.05 * largest)
        assert (got[2][key] - value).norm() < of_gradient * scale, key


def check_half_precision(
    name: str, variant: str, dtype: torch.dtype, device: torch.device
) -> None:
    """Hold a registered head under autocast near float32."""
    head = build(name, variant).to(device, torch.float32)
    text, video = (
        side.to(device).to(torch.float32) for side in features(6, 6)
    )
    expected = head(text, video)
    with torch.autocast(device.type, dtype=dtype):
        scores = head(text, video)
        losses = head.train().loss(text, video)
    assert scores.dtype is torch.float32
    assert bool(scores.isfinite().all())
    spread = expected.std()
    assert (scores - expected).abs().mean() < 0.25 * spread
    total = sum(value for key, value in losses.items() if 'loss' in key)
    assert total.dtype is torch.float32
    total.backward()
    for key, value in head.named_parameters():
        assert bool(value.grad.isfinite().all()), key
