"""Scores of the brute-force reference with the weights of a head."""

from __future__ import annotations

import harness  # noqa: F401  makes the checkout importable
import torch
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from tools.benchmark.reference.brute_force import score_pairs
from tools.benchmark.reference.brute_force_training import score_options
from tools.benchmark.reference.release_weights import release_weights


@torch.no_grad()
def score_by_brute_force(
    head: EagleNetHead, text: Tensor, frames: Tensor, rows: int
) -> Tensor:
    """Score by the reference, some texts at once, shape ``(Bt, Bv)``."""
    weights, options = release_weights(head), score_options(head)
    noise = head.noise_table[:, None]  # (S, 1, D)
    return torch.cat(
        [
            score_pairs(
                part,
                frames,
                noise.expand(-1, len(part) * len(frames), -1),
                weights,
                **options,
            )['logits']
            for part in text.split(rows)
        ]
    )
