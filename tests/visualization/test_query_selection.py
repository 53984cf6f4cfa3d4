from __future__ import annotations

import pytest

from eaglenet_mm.visualization.query_selection import (
    choose_queries,
    spread_evenly,
)


def test_places_are_spread_evenly() -> None:
    assert spread_evenly(10, 5) == [0, 2, 4, 6, 8]
    assert spread_evenly(3, 5) == [0, 1, 2]
    assert spread_evenly(7, 1) == [0]
    assert spread_evenly(0, 4) == []


def test_all_are_shown_where_they_fit() -> None:
    rows, said = choose_queries([1, 5, 1], 3)
    assert rows == [0, 1, 2]
    assert said == 'All 3 queries are shown.'


def test_half_is_spread_and_half_are_the_worst() -> None:
    ranks = [1, 9, 1, 2, 1, 30, 1, 4]
    rows, said = choose_queries(ranks, 4)
    # 0 and 4 are spread, 5 and 1 are the worst of the others
    assert rows == [0, 1, 4, 5]
    assert said.startswith('4 of 8 queries are shown: 2 spread evenly')
    assert 'Of 4 failures 2 are among them' in said


def test_the_spread_half_is_that_of_every_model() -> None:
    one, _ = choose_queries([1] * 50 + [2] * 50, 10)
    other, _ = choose_queries([3] * 100, 10)
    assert set(spread_evenly(100, 5)) <= set(one) & set(other)
    assert len(one) == len(other) == 10


@pytest.mark.parametrize('limit', [1, 2, 3, 5])
def test_right_answers_do_not_count_as_worst(limit) -> None:
    rows, _ = choose_queries([1] * 20, limit)
    assert rows == spread_evenly(20, (limit + 1) // 2)
