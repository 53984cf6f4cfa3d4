"""Moments against loops over spans, seconds and orders."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from eaglenet_mm.evaluation.functional import (
    RankedWindows,
    chance_of_hit,
    didemo_consensus,
    rank_windows,
    share_in_moments,
    summarize_didemo,
    summarize_windows,
    temporal_iou,
    times_in_moments,
)

#: All candidates of DiDeMo.
CHUNKS = [(a, b) for a in range(6) for b in range(a, 6)]


def slow_iou(one: list[int], other: list[int]) -> float:
    """Count tenths of a second that are in both, and in any."""
    mine, theirs = set(range(*one)), set(range(*other))
    return len(mine & theirs) / len(mine | theirs)


def random_spans(count: int, most: int = 60) -> list[list[int]]:
    return [sorted(random.sample(range(most), 2)) for _ in range(count)]


@pytest.mark.parametrize('count', [1, 2, 40])
def test_iou_against_counting(count):
    random.seed(count)
    windows, moments = random_spans(count), random_spans(count + 1)
    found = temporal_iou(
        torch.tensor(windows).double() / 10,
        torch.tensor(moments).double() / 10,
    )
    expected = [[slow_iou(x, y) for y in moments] for x in windows]
    torch.testing.assert_close(
        found,
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-9,
        atol=1e-12,
    )


def test_iou_by_eye():
    windows = torch.tensor([[0.0, 2.0], [4.0, 8.0]])
    moments = torch.tensor([[1.0, 3.0], [2.0, 4.0], [5.0, 7.0]])
    assert temporal_iou(windows, moments).tolist() == [
        [1 / 3, 0, 0],
        [0, 0, 0.5],
    ]


@pytest.mark.parametrize(
    ('spans', 'match'),
    [
        ([[1.0, 1.0]], r'number 0 is \[1.0, 1.0\]'),
        ([[0.0, 1.0], [3.0, 2.0]], r'number 1 is \[3.0, 2.0\]'),
        ([[0.0, float('nan')]], 'number 0'),
        ([0.0, 1.0], r'shape \(2,\)'),
        ([[0.0, 1.0, 2.0]], r'shape \(1, 3\)'),
    ],
)
def test_spans_that_are_none(spans, match):
    good = torch.tensor([[0.0, 1.0]])
    with pytest.raises(ValueError, match=f'Windows.*{match}'):
        temporal_iou(torch.tensor(spans), good)
    with pytest.raises(ValueError, match=f'Moments.*{match}'):
        temporal_iou(good, torch.tensor(spans))


def slow_rank(scores, overlaps, threshold) -> int:
    """The rank in the worst of all orders that the scores allow."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        ordered = [scores[x] for x in order]
        if ordered != sorted(ordered, reverse=True):
            continue
        hits = [n for n, x in enumerate(order, 1) if overlaps[x] >= threshold]
        ranks.append(min(hits, default=0))
    return max(ranks)


def test_ranks_against_all_orders():
    random.seed(3)
    for _ in range(60):
        count = random.randint(1, 6)
        # few values, so that there are ties
        scores = [random.randint(0, 3) for _ in range(count)]
        overlaps = [random.choice([0, 0.3, 0.5, 0.6, 0.7]) for _ in scores]
        found = rank_windows(
            torch.tensor(scores).float(),
            torch.tensor(overlaps, dtype=torch.float64),
        )
        assert found.ranks == tuple(
            slow_rank(scores, overlaps, x) for x in (0.5, 0.7)
        )
        assert found.num_right == tuple(
            sum(o >= x for o in overlaps) for x in (0.5, 0.7)
        )
        best = [
            o
            for s, o in zip(scores, overlaps, strict=True)
            if s == max(scores)
        ]
        assert found.overlap == min(best)
        assert found.mean_overlap == pytest.approx(sum(overlaps) / count)
        assert found.num_windows == count


def test_a_threshold_that_is_just_reached():
    """The IoU of [0, 0.7] and [0, 1.4] computed in float32 is below 0.5."""
    windows = torch.tensor([[1.1, 1.8]])
    moments = torch.tensor([[1.1, 2.5]])
    overlap = temporal_iou(windows, moments)[:, 0]
    assert overlap.item() < 0.5
    assert rank_windows(torch.ones(1), overlap, (0.5,)).ranks == (1,)
    assert rank_windows(torch.ones(1), overlap - 1e-5, (0.5,)).ranks == (0,)


def test_scores_that_are_none():
    with pytest.raises(ValueError, match='1 of 2'):
        rank_windows(torch.tensor([0.0, float('nan')]), torch.zeros(2))
    with pytest.raises(ValueError, match=r'\(0,\) and \(0,\)'):
        rank_windows(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match=r'\(2,\) and \(3,\)'):
        rank_windows(torch.zeros(2), torch.zeros(3))


def test_chance_against_all_draws():
    for count in range(1, 6):
        for right in range(count + 1):
            for k in range(1, 7):
                draws = list(
                    itertools.combinations(range(count), min(k, count))
                )
                hits = sum(min(draw) < right for draw in draws)
                assert chance_of_hit(right, count, k) == pytest.approx(
                    hits / len(draws)
                )


def test_summary_by_eye():
    results = [
        RankedWindows((1, 2), (2, 1), 4, 0.6, 0.4),
        RankedWindows((6, 0), (1, 0), 10, 0.2, 0.1),
    ]
    assert summarize_windows(results) == {
        'R1_IoU0.5': 50.0,
        'R1_IoU0.5_chance': pytest.approx(100 * (2 / 4 + 1 / 10) / 2),
        'R5_IoU0.5': 50.0,
        'R5_IoU0.5_chance': pytest.approx(100 * (1 + 5 / 10) / 2),
        'IoU0.5_ceiling': 100.0,
        'R1_IoU0.7': 0.0,
        'R1_IoU0.7_chance': pytest.approx(100 * (1 / 4) / 2),
        'R5_IoU0.7': 50.0,
        'R5_IoU0.7_chance': pytest.approx(100 * 1 / 2),
        'IoU0.7_ceiling': 50.0,
        'mIoU': pytest.approx(40.0),
        'mIoU_chance': pytest.approx(25.0),
    }
    with pytest.raises(ValueError, match='no moments'):
        summarize_windows([])


def test_times():
    moments = torch.tensor([[1.0, 2.0], [4.0, 5.0]])
    times = torch.tensor([0.9, 1.0, 2.0, 3.0, 4.5, 5.1])
    assert times_in_moments(times, moments).tolist() == [
        False, True, True, False, True, False,
    ]  # fmt: skip


def test_share_against_counting():
    random.seed(5)
    for _ in range(50):
        moments = random_spans(random.randint(1, 4))
        start, end = random_spans(1)[0]
        inside = {x for span in moments for x in range(*span)}
        expected = len(inside & set(range(start, end))) / (end - start)
        found = share_in_moments(start, end, torch.tensor(moments).float())
        assert found == pytest.approx(expected)


def slow_didemo(ranked, times) -> tuple[float, float]:
    """The best of all groups of three annotators, by chunks."""

    def mean_of(values, best):
        groups = itertools.combinations(values, min(3, len(values)))
        return best(sum(group) / len(group) for group in groups)

    overlaps = [
        slow_iou([ranked[0][0], ranked[0][1] + 1], [a, b + 1])
        for a, b in times
    ]
    ranks = [ranked.index(pair) + 1 for pair in times]
    return mean_of(ranks, min), mean_of(overlaps, max)


@pytest.mark.parametrize('annotators', [1, 2, 3, 4, 7])
def test_didemo_against_groups_of_annotators(annotators):
    random.seed(annotators)
    found, expected = [], []
    for _ in range(200):
        ranked = random.sample(CHUNKS, len(CHUNKS))
        # annotators agree more often than not
        near = random.sample(CHUNKS[:4], 2)
        times = [random.choice(near) for _ in range(annotators)]
        order = random.sample(range(21), 21)  # candidates come in any order
        chunks = torch.tensor([ranked[x] for x in order])
        scores = -torch.tensor(order).float()
        found.append(didemo_consensus(scores, chunks, torch.tensor(times)))
        expected.append(slow_didemo(ranked, times))
    assert found == [pytest.approx(pair) for pair in expected]
    ranks = [rank for rank, _ in expected]
    assert summarize_didemo(found) == {
        'rank1': pytest.approx(sum(x <= 1 for x in ranks) / 2),
        'rank5': pytest.approx(sum(x <= 5 for x in ranks) / 2),
        'mIoU': pytest.approx(sum(iou for _, iou in expected) / 2),
    }


def test_didemo_ties_and_missing_candidates():
    chunks = torch.tensor([[0, 0], [1, 1], [2, 2]])
    times = torch.tensor([[1, 1]] * 4)
    assert didemo_consensus(torch.zeros(3), chunks, times) == (3, 0)
    assert didemo_consensus(torch.zeros(3), chunks, times + 4) == (4, 0)
