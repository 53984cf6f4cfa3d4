from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eaglenet_mm.evaluation.functional import (
    check_finite,
    rank_targets,
    ranking,
    summarize_ranks,
    text_to_video_ranks,
    video_caption_scores,
    video_to_text_ranks,
)


def slow_ranks(scores, targets) -> tuple[list[int], list[int]]:
    """The definition as nested loops."""
    ranks, ties = [], []
    for row, right in zip(scores.tolist(), targets.tolist(), strict=True):
        ranks.append(sum(value >= row[right] for value in row))
        ties.append(sum(value == row[right] for value in row) - 1)
    return ranks, ties


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    num_texts=st.integers(1, 12),
    num_videos=st.integers(1, 9),
    levels=st.sampled_from([2, 4, 1000]),
)
def test_both_directions_equal_the_definition(
    seed, num_texts, num_videos, levels
):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(
        levels, (num_texts, num_videos), generator=generator
    ).float()
    owner = torch.randint(num_videos, (num_texts,), generator=generator)
    result = text_to_video_ranks(scores, owner)
    ranks, ties = slow_ranks(scores, owner)
    assert result.ranks.tolist() == ranks
    assert result.ties.tolist() == ties
    videos = sorted(set(owner.tolist()))
    by_video = torch.tensor(
        [
            [
                max(
                    scores[text, video]
                    for text in range(num_texts)
                    if owner[text] == group
                )
                for group in videos
            ]
            for video in videos
        ]
    )
    found, columns = video_caption_scores(scores, owner)
    assert columns.tolist() == videos
    assert torch.equal(found, by_video)
    result = video_to_text_ranks(scores, owner)
    ranks, ties = slow_ranks(by_video, torch.arange(len(videos)))
    assert result.ranks.tolist() == ranks
    assert result.ties.tolist() == ties


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**16), size=st.integers(2, 20))
def test_ranks_survive_increasing_maps_and_permutations(seed, size):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(size, size, generator=generator).double()
    targets = torch.randperm(size, generator=generator)
    expected = rank_targets(scores, targets)
    mapped = rank_targets(scores.exp() * 3 - 7, targets)
    assert torch.equal(mapped.ranks, expected.ranks)
    order = torch.randperm(size, generator=generator)
    moved = rank_targets(scores[:, order], order.argsort()[targets])
    assert torch.equal(moved.ranks, expected.ranks)


def test_a_constant_matrix_gets_the_last_place():
    result = rank_targets(torch.zeros(4, 4), torch.arange(4))
    assert result.ranks.tolist() == [4, 4, 4, 4]
    assert result.ties.tolist() == [3, 3, 3, 3]
    assert result.num_tied_queries == 4


def test_hand_made_matrix():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 0.1]])
    result = text_to_video_ranks(scores, torch.tensor([2, 0]))
    assert result.ranks.tolist() == [2, 2]
    assert result.ties.tolist() == [0, 1]
    # video 1 has no caption: it competes, but asks nothing
    back = video_to_text_ranks(scores, torch.tensor([2, 0]))
    assert back.ranks.tolist() == [2, 1]


def test_a_nan_or_infinity_raises_with_its_place():
    scores = torch.zeros(3, 4)
    scores[1, 2], scores[2, 0] = torch.nan, torch.inf
    for check in (
        check_finite,
        lambda s: rank_targets(s, torch.zeros(3)),
        lambda s: video_to_text_ranks(s, torch.zeros(3)),
    ):
        with pytest.raises(
            ValueError, match=r'2 of 12 are not; .* nan in row 1, column 2'
        ):
            check(scores)


@pytest.mark.parametrize(
    ('scores', 'targets', 'message'),
    [
        (torch.zeros(3), torch.zeros(3), r'two axes .* got shape \(3,\)'),
        (torch.zeros(3, 2), torch.zeros(2), r'3 queries, .* shape \(2,\)'),
        (
            torch.zeros(2, 3),
            torch.tensor([0, 3]),
            r'in \[0, 3\), but target 1 is 3',
        ),
        (torch.zeros(1, 3), torch.tensor([-1]), 'target 0 is -1'),
    ],
)
def test_bad_arguments(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        rank_targets(scores, targets)


def test_summary_of_hand_made_ranks():
    summary = summarize_ranks(torch.tensor([1, 2, 6, 51]))
    assert summary == {
        'R1': 25.0,
        'R5': 50.0,
        'R10': 75.0,
        'R50': 75.0,
        'MdR': 4.0,
        'MnR': 15.0,
    }
    odd = torch.tensor([3, 9, 1])
    assert summarize_ranks(odd)['MdR'] == np.median(odd.numpy())


def test_no_ranks():
    with pytest.raises(ValueError, match='no ranks to summarise'):
        summarize_ranks(torch.empty(0, dtype=torch.long))


def test_chunks_change_nothing(monkeypatch):
    scores, targets = torch.randn(23, 5), torch.randint(5, (23,))
    expected = rank_targets(scores, targets)
    monkeypatch.setattr(ranking, '_ENTRIES_PER_CHUNK', 15)
    chunked = rank_targets(scores, targets)
    assert torch.equal(chunked.ranks, expected.ranks)
    assert torch.equal(chunked.ties, expected.ties)


def test_one_thousand_squared_is_fast():
    scores, targets = torch.randn(1000, 1000), torch.arange(1000)
    start = time.perf_counter()
    text_to_video_ranks(scores, targets)
    video_to_text_ranks(scores, targets)
    assert time.perf_counter() - start < 2  # measured: 0.03 s on one core
