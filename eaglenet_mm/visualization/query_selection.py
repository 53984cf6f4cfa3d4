"""Which of many queries a page shows."""

from __future__ import annotations

from collections.abc import Sequence


def spread_evenly(total: int, count: int) -> list[int]:
    """Choose places at equal distances.

    Args:
        total (int): Places there are.
        count (int): Places to choose.

    Returns:
        list[int]: Ascending, all of them if there are not more.
    """
    count = min(count, total)
    return [place * total // count for place in range(count)]


def choose_queries(ranks: Sequence[int], limit: int) -> tuple[list[int], str]:
    """Choose the queries of a page, and say how.

    One half is spread evenly over the set, so that the page is fair and
    pages of several models have queries in common; the other half are the
    queries whose right answer ranks worst.

    Args:
        ranks (Sequence[int]): Rank of every query, from 1.
        limit (int): Most queries to show.

    Returns:
        tuple[list[int], str]: Places of the queries, ascending, and a
        sentence for the page.
    """
    total = len(ranks)
    if total <= limit:
        return list(range(total)), f'All {total} queries are shown.'
    even = spread_evenly(total, (limit + 1) // 2)
    taken = set(even)
    rest = sorted(
        (row for row in range(total) if row not in taken and ranks[row] > 1),
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
