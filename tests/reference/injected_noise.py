"""One source of random numbers for our head and for the reference."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tools.benchmark.reference.brute_force_energy import (
    LangevinNoise,
    TorchNoise,
)


def seeded_noise(seed: int) -> TorchNoise:
    """Noise of the chains; the same seed gives the same draws."""
    return TorchNoise(torch.Generator().manual_seed(seed))


def inject_noise(
    head: Any, noise: Tensor, langevin_noise: LangevinNoise
) -> None:
    """Make the head train with given random numbers.

    Overrides its methods ``pair_noise`` and ``energy_noise``.

    Args:
        head (EagleNetHead): The head.
        noise (Tensor): Of the candidates, shape ``(S, B * B, D)``.
        langevin_noise (LangevinNoise): Of both energy losses, in this order:
            texts, support texts.
    """
    count, pairs, width = noise.shape
    size = math.isqrt(pairs)
    by_video = noise.view(count, size, size, width).permute(2, 1, 0, 3)

    def pair_noise(random: Any, like: Tensor) -> Tensor:
        columns = by_video[list(random.columns)]
        return columns[:, list(random.rows)].to(like)  # (Bv, Bt, S, D)

    def energy_noise(random: Any, purpose: str) -> LangevinNoise:
        return langevin_noise

    head.pair_noise = pair_noise
    head.energy_noise = energy_noise
