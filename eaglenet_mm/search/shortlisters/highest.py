"""The highest of each row, with equal ones in the order of their ids."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def sort_by_score(scores: Tensor, row_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row: higher scores first, of equal ones the lower id.

    Args:
        scores (Tensor): Shape ``(Q, n)``.
        row_ids (Tensor): Int64, shape ``(Q, n)``.

    Returns:
        tuple[Tensor, Tensor]: Both sorted, shapes ``(Q, n)``.
    """
    by_id = row_ids.argsort(dim=1)
    scores, row_ids = scores.gather(1, by_id), row_ids.gather(1, by_id)
    order = scores.argsort(dim=1, descending=True, stable=True)
    return scores.gather(1, order), row_ids.gather(1, order)


def select_highest(
    scores: Tensor, row_ids: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Select the highest of each row, of equal ones the lower ids.

    ``topk`` alone leaves open which of equal ones it takes; so the rows where
    more are as high as the last one taken are looked at again.

    Args:
        scores (Tensor): Shape ``(Q, N)``, without NaN.
        row_ids (Tensor): Int64, shape ``(N,)`` or ``(Q, N)``.
        count (int): Number to select, at least 1.

    Returns:
        tuple[Tensor, Tensor]: Scores, descending, and ids, both of shape
        ``(Q, min(count, N))``.
    """
    row_ids = row_ids.expand_as(scores)  # (Q, N)
    if count >= scores.shape[1]:
        return sort_by_score(scores, row_ids)
    highest, places = scores.topk(count, dim=1)
    chosen = row_ids.gather(1, places)  # (Q, count)
    last = highest[:, -1:]
    contested = (scores >= last).sum(dim=1) > count
    for query in contested.nonzero().flatten().tolist():
        among = (scores[query] >= last[query]).nonzero().flatten()
        ordered = sort_by_score(
            scores[query, among][None], row_ids[query, among][None]
        )
        highest[query], chosen[query] = (x[0, :count] for x in ordered)
    return sort_by_score(highest, chosen)


def fetch_highest(
    fetch: Callable[[int], tuple[Tensor, Tensor]], count: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Select the highest of a search that leaves the order of equals open.

    Asks for more than wanted until what is left out is lower than what is
    taken, or until there is no more to ask for.

    Args:
        fetch (Callable): From a number to scores and ids, both of shape
            ``(Q, number)``, or narrower if there are no more.
        count (int): Number to select, at least 1.
        limit (int): Most that may be asked for, at least ``count``.

    Returns:
        tuple[Tensor, Tensor]: Scores, descending, and ids, both of shape
        ``(Q, count)``, or narrower if there are no more.
    """
    asked = min(count + 1, limit)
    while True:
        scores, row_ids = sort_by_score(*fetch(asked))
        if asked == limit or scores.shape[1] < asked:
            break
        if not bool((scores[:, count - 1] == scores[:, -1]).any()):
            break
        asked = min(4 * asked, limit)
    return scores[:, :count], row_ids[:, :count]
