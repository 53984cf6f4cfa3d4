"""The first videos of every caption."""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional import RankResult, RightPairs

from .results_data import TOP

_ROWS = 1024  # sorted at once: bounds the temporaries of large matrices


def ranks_of_all(result: RankResult, num_texts: int) -> Tensor:
    """Give every caption a rank.

    Args:
        result (RankResult): Text to video.
        num_texts (int): ``Bt``.

    Returns:
        Tensor: Ranks from 1, and 0 for captions without a right video, int64,
        shape ``(Bt,)``.
    """
    if result.queries is None:
        return result.ranks
    ranks = result.ranks.new_zeros(num_texts)
    ranks[result.queries] = result.ranks
    return ranks


def first_videos(
    scores: Tensor,
    targets: Tensor | RightPairs,
    ranks: Tensor,
    count: int = TOP,
) -> tuple[Tensor, Tensor]:
    """Find the first videos of every caption, in the order of their ranks.

    Ties count against right videos, here as in the metrics: where the first
    of them is among the first videos, it stands at its rank.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``.
        targets (Tensor or RightPairs): Column of each caption's video, shape
            ``(Bt,)``, or the right pairs.
        ranks (Tensor): Their ranks, from 1, shape ``(Bt,)``.
        count (int): Videos to find. Defaults to 5.

    Returns:
        tuple[Tensor, Tensor]: Columns (int64) and scores, shape ``(Bt, n)``
        with n at most the number of videos.
    """
    count = min(count, scores.shape[1])
    if isinstance(targets, RightPairs):
        starts = range(0, len(scores), _ROWS)
        found = torch.cat(
            [
                _wrong_before_right(
                    scores[start : start + _ROWS], targets, start
                )[:, :count]
                for start in starts
            ]
        )
        return found, scores.gather(1, found)
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


def _wrong_before_right(
    scores: Tensor, right: RightPairs, start: int
) -> Tensor:
    """Sort videos by score, of equal ones the wrong first, ``(n, Bv)``."""
    mask = right.of_texts(start, start + len(scores), scores.shape[1])
    wrong_first = mask.int().argsort(dim=1, stable=True)
    order = scores.gather(1, wrong_first).argsort(
        dim=1, descending=True, stable=True
    )
    return wrong_first.gather(1, order)


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
