from __future__ import annotations

import pytest
import torch

from eaglenet_mm.evaluation.functional import bootstrap, bootstrap_recall


def test_interval_is_that_of_a_binomial():
    """480 hits of 1000: 48 percent plus or minus 1.96 standard errors."""
    ranks = torch.tensor([1] * 480 + [7] * 520)
    low, high = bootstrap_recall(ranks)
    assert low == pytest.approx(48 - 3.1, abs=0.4)
    assert high == pytest.approx(48 + 3.1, abs=0.4)
    assert bootstrap_recall(ranks) == (low, high)  # own generator
    assert bootstrap_recall(ranks, k=10) == (100.0, 100.0)
    narrow = bootstrap_recall(ranks, level=0.5)
    assert low < narrow[0] < 48 < narrow[1] < high


def test_captions_of_a_video_are_drawn_together():
    """Equal captions carry no new information: the interval stays wide."""
    ranks = torch.tensor([1] * 20 + [9] * 20)
    single = bootstrap_recall(ranks)
    repeated = ranks.repeat_interleave(25)
    groups = torch.arange(40).repeat_interleave(25)
    together = bootstrap_recall(repeated, groups)
    assert together == pytest.approx(single)
    apart = bootstrap_recall(repeated)
    assert apart[1] - apart[0] < (single[1] - single[0]) / 3


def test_chunks_change_little(monkeypatch):
    ranks = torch.randint(1, 4, (50,))
    expected = bootstrap_recall(ranks)
    monkeypatch.setattr(bootstrap, '_DRAWS_PER_CHUNK', 50 * 7)
    assert bootstrap_recall(ranks) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('ranks', 'options', 'message'),
    [
        ([], {}, '0 ranks'),
        ([1], dict(num_samples=0), 'num_samples=0'),
        ([1], dict(level=1.0), r'level=1\.0'),
    ],
)
def test_bad_arguments(ranks, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_recall(torch.tensor(ranks, dtype=torch.long), **options)
