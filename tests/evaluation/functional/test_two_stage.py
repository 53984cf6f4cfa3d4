from __future__ import annotations

import pytest
import torch

from eaglenet_mm.evaluation.functional import (
    off_shortlist_scores,
    on_shortlist,
    shortlist_recall,
    text_to_video_ranks,
)
from eaglenet_mm.evaluation.functional.ranking import OFF_SHORTLIST


def neighbours(value: float, count: int) -> torch.Tensor:
    """A float32 number and those that follow it."""
    bits = torch.tensor(value).view(torch.int32) + torch.arange(count).int()
    return bits.view(torch.float32)


def test_order_is_kept_to_the_last_bit():
    """Cosines that differ by one bit stay different and in order."""
    for value in (0.04, 0.3, 0.9):
        cheap = neighbours(value, 50)
        assert (cheap.diff() > 0).all()
        assert (off_shortlist_scores(cheap).diff() > 0).all()
        # negative ones in the mirror
        assert (off_shortlist_scores(-cheap).diff() < 0).all()


def test_order_is_kept_over_the_whole_range():
    cheap = torch.cat(
        [torch.rand(5000) * 2 - 1, torch.randn(1000) * 1e-6, torch.zeros(2)]
    )
    cheap = cheap.sort().values
    moved = off_shortlist_scores(cheap)
    assert (moved.diff() >= 0).all()
    apart = cheap.diff() > 2.0**-27
    assert apart.sum() > 4000
    assert (moved.diff()[apart] > 0).all()


def test_range():
    moved = off_shortlist_scores(torch.tensor([[1.0], [-1.0], [0.0]]))
    assert moved.shape == (3, 1)
    assert moved.dtype == torch.float32
    assert moved[:2].flatten().tolist() == [OFF_SHORTLIST, -(2.0**124)]
    assert not on_shortlist(moved).any()
    assert on_shortlist(torch.tensor([-1e9, 0.0, 1e9])).all()
    # rounding: a cosine a little out of range
    assert torch.equal(
        off_shortlist_scores(torch.tensor([1.0000001, -1.0000001])),
        off_shortlist_scores(torch.tensor([1.0, -1.0])),
    )
    assert on_shortlist(torch.zeros(2, dtype=torch.half)).all()


def two_stage() -> tuple[torch.Tensor, torch.Tensor]:
    """Three videos, five captions, shortlists of one or two videos."""
    cheap = off_shortlist_scores(torch.linspace(-1, 1, 15).view(5, 3))
    scored = torch.tensor(
        [[1, 1, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1]]
    ).bool()
    return torch.where(scored, torch.randn(5, 3), cheap), scored


def test_recall_of_a_hand_made_matrix():
    scores, scored = two_stage()
    assert torch.equal(on_shortlist(scores), scored)
    # captions 0 and 1 of video 0: the first has it; caption 2 of video 1
    # has it; caption 3 of video 1 has not; caption 4 of video 2 has it
    owner = torch.tensor([0, 0, 1, 1, 2])
    assert shortlist_recall(scores, owner) == (60.0, 100.0)
    # captions 1, 2 and 4 lack video 0, captions 0 and 3 have and lack 1
    owner = torch.tensor([1, 0, 0, 1, 0])
    assert shortlist_recall(scores, owner) == (20.0, 50.0)
    assert shortlist_recall(torch.zeros(5, 3), owner) == (100.0, 100.0)


def test_ranks_go_on_behind_the_shortlist():
    cheap = torch.tensor([[0.9, 0.8, 0.7, 0.1, 0.2]])
    scores = off_shortlist_scores(cheap)
    scores[0, :2] = torch.tensor([-50.0, -40.0])
    ranks = [
        int(text_to_video_ranks(scores, torch.tensor([column])).ranks)
        for column in range(5)
    ]
    assert ranks == [2, 1, 3, 5, 4]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_double_precision_keeps_the_stages_apart(dtype):
    scores = two_stage()[0]
    assert torch.equal(on_shortlist(scores.to(dtype)), on_shortlist(scores))
