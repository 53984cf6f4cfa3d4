"""Several right answers, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eaglenet_mm.evaluation.functional import (
    RightPairs,
    off_shortlist_scores,
    ranking,
    shortlist_recall,
    summarize_positions,
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)


def pairs_of(lists: list[list[int]], homes: list[int]) -> RightPairs:
    flat = [(t, v) for t, own in enumerate(lists) for v in sorted(own)]
    texts, videos = torch.tensor(flat, dtype=torch.long).reshape(-1, 2).t()
    return RightPairs(torch.tensor(homes), texts, videos)


def draw(seed: int, num_texts: int, num_videos: int, levels: int):
    """Scores, right videos of each text, and the videos they stand with."""
    generator = torch.Generator().manual_seed(seed)

    def number(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    scores = torch.randint(
        levels, (num_texts, num_videos), generator=generator
    ).float()
    lists = [
        sorted({number(num_videos) for _ in range(number(4))})
        for _ in range(num_texts)
    ]
    homes = [own[number(len(own))] if own else -1 for own in lists]
    return scores, lists, homes


def slow_list(entries: list[tuple[float, bool]]) -> list[int]:
    """Positions of right entries of a list, wrong ones first among equals."""
    ordered = sorted(entries, key=lambda entry: (-entry[0], entry[1]))
    return [i for i, (_, right) in enumerate(ordered, 1) if right]


def slow_entries(scores, lists, homes, direction: str) -> list[list]:
    """Every query with a right answer: its candidates, right or wrong."""
    num_videos = scores.shape[1]
    if direction == 't2v':
        return [
            [(float(scores[t, v]), v in own) for v in range(num_videos)]
            for t, own in enumerate(lists)
            if own
        ]
    found = []
    groups: dict = {}
    for text, home in enumerate(homes):
        groups.setdefault(home if home >= 0 else ('alone', text), []).append(
            text
        )
    for video in range(num_videos):
        if not any(video in own for own in lists):
            continue
        entries = []
        for texts in groups.values():
            for right in (True, False):
                values = [
                    float(scores[text, video])
                    for text in texts
                    if (video in lists[text]) is right
                ]
                if values:
                    entries.append((max(values), right))
        found.append(entries)
    return found


def slow_measures(queries: list[list], k: int) -> dict[str, float]:
    precisions, gains = [], []
    for entries in queries:
        positions = slow_list(entries)
        possible = min(k, len(positions))
        hits = [p for p in positions if p <= k]
        precisions.append(
            sum((i + 1) / p for i, p in enumerate(hits)) / possible
        )
        gains.append(
            sum(1 / math.log2(p + 1) for p in hits)
            / sum(1 / math.log2(i + 2) for i in range(possible))
        )
    return {
        f'mAP{k}': 100 * sum(precisions) / len(queries),
        f'nDCG{k}': 100 * sum(gains) / len(queries),
    }


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    num_texts=st.integers(1, 14),
    num_videos=st.integers(1, 9),
    levels=st.sampled_from([2, 5, 1000]),
)
@pytest.mark.parametrize('direction', ['t2v', 'v2t'])
def test_both_directions_equal_plain_loops(
    direction, seed, num_texts, num_videos, levels
):
    scores, lists, homes = draw(seed, num_texts, num_videos, levels)
    right = pairs_of(lists, homes)
    rank = text_to_video_ranks if direction == 't2v' else video_to_text_ranks
    result = rank(scores, right)
    queries = slow_entries(scores, lists, homes, direction)
    assert result.ranks.tolist() == [slow_list(x)[0] for x in queries]
    ties = [
        sum(
            not is_right
            and value == max(score for score, good in entries if good)
            for value, is_right in entries
        )
        for entries in queries
    ]
    assert result.ties.tolist() == ties
    assert result.num_right.tolist() == [len(slow_list(x)) for x in queries]
    if not queries:
        return
    for k in (5, 10, 50):
        for name, value in slow_measures(queries, k).items():
            found = summarize_positions(result)[name]
            assert found == pytest.approx(value, rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16))
def test_neither_order_nor_chunks_matter(seed):
    scores, lists, homes = draw(seed, 11, 8, 4)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(11, generator=generator)
    columns = torch.randperm(8, generator=generator)
    place = columns.argsort().tolist()
    moved = pairs_of(
        [[place[v] for v in lists[row]] for row in rows.tolist()],
        [place[homes[r]] if homes[r] >= 0 else -1 for r in rows.tolist()],
    )
    own = pairs_of(lists, homes)
    for rank in (text_to_video_ranks, video_to_text_ranks):
        expected = rank(scores, own)
        found = rank(scores[rows][:, columns], moved)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, '_SORTED_PER_CHUNK', 16)
            cut = rank(scores, own)
        assert all(map(torch.equal, cut, expected))
        assert sorted(found.ranks.tolist()) == sorted(expected.ranks.tolist())
        if len(expected.ranks):
            for name, value in summarize_positions(expected).items():
                assert summarize_positions(found)[name] == pytest.approx(value)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16), levels=st.sampled_from([3, 1000]))
def test_single_answers_are_the_same_both_ways(seed, levels):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (12, 5), generator=generator).float()
    owner = torch.randint(5, (12,), generator=generator)
    pairs = RightPairs(owner, torch.arange(12), owner)
    assert torch.equal(pairs.simplify(), owner)
    for rank in (text_to_video_ranks, video_to_text_ranks):
        expected, found = rank(scores, owner), rank(scores, pairs)
        assert torch.equal(found.ranks, expected.ranks)
        assert torch.equal(found.ties, expected.ties)


def test_one_sentence_for_eight_equal_videos():
    """Whatever comes first is right; as eight answers it was 12.5 %."""
    scores = torch.zeros(8, 8)
    every = pairs_of([list(range(8))] * 8, list(range(8)))
    for rank in (text_to_video_ranks, video_to_text_ranks):
        result = rank(scores, every)
        assert summarize_ranks(result.ranks)['R1'] == 100.0
        assert summarize_positions(result)['mAP5'] == 100.0
        assert result.num_tied_queries == 0
    one = text_to_video_ranks(scores, torch.arange(8))
    assert one.ranks.tolist() == [8] * 8


def test_shortlist_recall_takes_any_right_answer():
    cheap = off_shortlist_scores(torch.zeros(4, 4))
    scores = cheap.clone()
    scores[0, 1] = scores[1, 2] = scores[2, 0] = 0.5  # shortlists of one
    right = pairs_of([[0, 1], [0, 1], [2], []], [0, 1, 2, -1])
    # text 0 has video 1; the others have none of theirs, text 3 asks nothing
    assert shortlist_recall(scores, right) == pytest.approx((100 / 3, 100 / 3))


def test_pairs_of_another_matrix():
    with pytest.raises(ValueError, match='each of the 3 texts, but got'):
        text_to_video_ranks(torch.zeros(3, 2), pairs_of([[0]], [0]))
    single = text_to_video_ranks(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match='RightPairs'):
        summarize_positions(single)
