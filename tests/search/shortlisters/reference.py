"""A first stage as a dict and a loop, and galleries for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 8


def unit_vectors(count: int, width: int = WIDTH) -> Tensor:
    return F.normalize(torch.randn(count, width), dim=1)


def coarse_vectors(count: int, width: int = WIDTH) -> Tensor:
    """Vectors whose products have no rounding, and many ties."""
    return torch.randint(-1, 2, (count, width)).float() / 4


def brute_force(
    held: dict[int, Tensor], queries: Tensor, count: int
) -> tuple[list[list[float]], list[list[int]]]:
    scores, row_ids = [], []
    for query in queries.double():
        ranked = sorted(
            (-float(query @ vector.double()), row)
            for row, vector in held.items()
        )[:count]
        scores.append([-score for score, _ in ranked])
        row_ids.append([row for _, row in ranked])
    return scores, row_ids


def as_dict(row_ids: Tensor, vectors: Tensor) -> dict[int, Tensor]:
    return dict(zip(row_ids.tolist(), vectors, strict=True))
