from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eaglenet_mm.evaluation.functional import text_to_video_ranks
from eaglenet_mm.visualization.rankings import (
    choose_queries,
    first_videos,
    spread_evenly,
)


@given(
    seed=st.integers(0, 10**6),
    texts=st.integers(1, 7),
    videos=st.integers(1, 9),
    levels=st.integers(1, 6),
)
def test_the_right_video_stands_at_its_rank(seed, texts, videos, levels):
    generator = torch.Generator().manual_seed(seed)
    # few levels make many ties
    scores = torch.randint(levels, (texts, videos), generator=generator)
    scores = scores.float()
    targets = torch.randint(videos, (texts,), generator=generator)
    ranks = text_to_video_ranks(scores, targets).ranks
    columns, values = first_videos(scores, targets, ranks)
    assert columns.shape == (texts, min(5, videos))
    assert torch.equal(values, scores.gather(1, columns))
    for row in range(texts):
        found = columns[row].tolist()
        assert len(set(found)) == len(found)
        expected = sorted(scores[row].tolist(), reverse=True)
        assert values[row].tolist() == expected[: len(found)]
        rank, target = int(ranks[row]), int(targets[row])
        if rank <= len(found):
            assert found.index(target) == rank - 1
        else:
            assert target not in found


@pytest.mark.parametrize('count', [1, 3])
def test_fewer_videos_on_request(count) -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7]])
    target = torch.tensor([2])
    ranks = text_to_video_ranks(scores, target).ranks
    columns, _ = first_videos(scores, target, ranks, count)
    assert columns.tolist() == [[1, 3, 2][:count]]


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
