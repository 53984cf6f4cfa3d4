"""Choice of the queries and videos to show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional import RankResult, RightPairs
from eaglenet_mm.visualization.results_data import TOP

_ROWS = 1024  # per chunk: bounds the temporaries of large matrices


def spread_evenly(total: int, count: int) -> list[int]:
    """Evenly spaced positions, ascending; all if there are no more."""
    count = min(count, total)
    return [place * total // count for place in range(count)]


def choose_queries(ranks: Sequence[int], limit: int) -> tuple[list[int], str]:
    """Choose the queries of a page, and describe the choice.

    Half are spread evenly over the set, for a fair picture and for overlap
    between models; the others are those with the worst ranks.
    """
    total = len(ranks)
    if total <= limit:
        return list(range(total)), f'All {total} queries are shown.'
    even = spread_evenly(total, (limit + 1) // 2)
    rest = sorted(
        (row for row in {*range(total)} - {*even} if ranks[row] > 1),
        key=lambda row: (-ranks[row], row),
    )
    worst = rest[: limit - len(even)]
    failures = sum(rank > 1 for rank in ranks)
    shown = sum(ranks[row] > 1 for row in [*even, *worst])
    return sorted([*even, *worst]), (
        f'{len(even) + len(worst)} of {total} queries are shown: {len(even)} '
        'spread evenly over the set (the same for every model), and the '
        f'{len(worst)} others whose right answer ranks worst. Of '
        f'{failures} failures {shown} are among them. More with '
        '--show-queries.'
    )


def ranks_of_all(result: RankResult, num_texts: int) -> Tensor:
    """Ranks of all captions, 0 if no video is right, shape ``(Bt,)``."""
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
    """Find the top videos of every caption.

    As in the metrics, ties count against right videos, so a right video
    stands at its rank. Returns columns (int64) and scores, ``(Bt, n)`` with n
    at most the number of videos.
    """
    count = min(count, scores.shape[1])
    parts = []
    for start in range(0, len(scores), _ROWS):
        part = slice(start, start + _ROWS)
        parts.append(
            _wrong_before_right(scores[part], targets, start)[:, :count]
            if isinstance(targets, RightPairs)
            else _first_columns(
                scores[part], targets[part], ranks[part], count
            )
        )
    found = torch.cat(parts)
    return found, scores.gather(1, found)


def _wrong_before_right(
    scores: Tensor, right: RightPairs, start: int
) -> Tensor:
    """Sort videos by score, ties with wrong ones first, ``(n, Bv)``."""
    mask = right.of_texts(start, start + len(scores), scores.shape[1])
    wrong_first = mask.int().argsort(dim=1, stable=True)
    order = scores.gather(1, wrong_first).argsort(
        dim=1, descending=True, stable=True
    )
    return wrong_first.gather(1, order)


def _first_columns(
    scores: Tensor, targets: Tensor, ranks: Tensor, count: int
) -> Tensor:
    """Insert the right video at its rank, shape ``(n, count)``."""
    others = scores.clone()
    others.scatter_(1, targets[:, None], -torch.inf)
    order = others.topk(count, dim=1).indices  # (n, count)
    own = (ranks - 1)[:, None]  # position of the right video
    place = torch.arange(count)[None]
    # everything after the right video moves by one position
    source = (place - (place > own).long()).clamp(min=0)
    return torch.where(place == own, targets[:, None], order.gather(1, source))
