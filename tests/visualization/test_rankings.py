from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eaglenet_mm.evaluation.functional import text_to_video_ranks
from eaglenet_mm.visualization.rankings import first_videos


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
