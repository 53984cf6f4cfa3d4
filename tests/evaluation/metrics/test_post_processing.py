from __future__ import annotations

import pytest
import torch

from eaglenet_mm.evaluation.functional import dual_softmax
from eaglenet_mm.evaluation.metrics.post_processing import PostProcessing


def test_dual_softmax_goes_over_the_queries_of_each_direction():
    scores = torch.randn(5, 3)
    for_texts, for_videos = PostProcessing(type='dsl', temperature=2.0)(scores)
    assert torch.equal(for_texts, dual_softmax(scores, temperature=2.0))
    assert torch.equal(
        for_videos, dual_softmax(scores.t(), temperature=2.0).t()
    )


def test_settings_are_shown():
    assert str(PostProcessing('dsl', temperature=3.0)) == (
        'dsl(temperature=3.0)'
    )


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="but got 'softmax'"):
        PostProcessing(type='softmax')
    with pytest.raises(ValueError, match=r"but got \['beta'\]"):
        PostProcessing(type='dsl', beta=1.0)
    missing = PostProcessing('querybank', bank_file=str(tmp_path / 'no.npy'))
    with pytest.raises(FileNotFoundError, match=r'no\.npy. does not exist'):
        missing(torch.zeros(1, 1))
