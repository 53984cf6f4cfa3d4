"""The first videos of every caption."""

from __future__ import annotations

import torch
from torch import Tensor

from .results_data import TOP

_ROWS = 1024  # sorted at once: bounds the temporaries of large matrices


def first_videos(
    scores: Tensor, targets: Tensor, ranks: Tensor, count: int = TOP
) -> tuple[Tensor, Tensor]:
    """Find the first videos of every caption, in the order of their ranks.

    Ties count against the right video, here as in the metrics: where it is
    among the first, it stands at its rank.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``.
        targets (Tensor): Column of each caption's video, shape ``(Bt,)``.
        ranks (Tensor): Their ranks, from 1, shape ``(Bt,)``.
        count (int): Videos to find. Defaults to 5.

    Returns:
        tuple[Tensor, Tensor]: Columns (int64) and scores, shape ``(Bt, n)``
        with n at most the number of videos.
    """
    count = min(count, scores.shape[1])
    columns = [
        _first_columns(part, own, rank, count)
        for part, own, rank in zip(
            scores.split(_ROWS),
            targets.split(_ROWS),
            ranks.split(_ROWS),
            strict=True,
        )
    ]
    found = torch.cat(columns)
    return found, scores.gather(1, found)


def _first_columns(
    scores: Tensor, targets: Tensor, ranks: Tensor, count: int
) -> Tensor:
    """Put the right video between the others, shape ``(n, count)``."""
    others = scores.clone()
    others.scatter_(1, targets[:, None], -torch.inf)
    order = others.topk(count, dim=1).indices  # (n, count)
    own = (ranks - 1)[:, None]  # place of the right one
    place = torch.arange(count)[None]
    # behind the right one everything stands a place later
    source = (place - (place > own).long()).clamp(min=0)
    return torch.where(place == own, targets[:, None], order.gather(1, source))
