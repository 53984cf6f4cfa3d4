from __future__ import annotations

import pytest
import torch

from eaglenet_mm.engine.loops.encoded_features import (
    check_texts,
    check_videos,
    to_full_precision,
)
from eaglenet_mm.structures import TextFeatures, VideoFeatures


def test_half_precision_is_cast_and_double_is_kept():
    half = TextFeatures(torch.ones(1, 2, dtype=torch.float16))
    double = TextFeatures(torch.ones(1, 2, dtype=torch.float64))
    assert to_full_precision(half).embeds.dtype == torch.float32
    assert to_full_precision(double).embeds.dtype == torch.float64


@pytest.mark.parametrize('name', ['frames', 'patches'])
def test_broken_videos_are_named(name):
    videos = VideoFeatures(
        torch.zeros(8, 2, 3), torch.ones(8, 2).bool(), torch.zeros(8, 2, 4, 3)
    )
    check_videos(videos, list('abcdefgh'))
    getattr(videos, name)[2:, 1] = -torch.inf
    with pytest.raises(
        ValueError,
        match=rf"6 of 8 videos .* '{name}': \['c', 'd', 'e', 'f', 'g'\]\.",
    ):
        check_videos(videos, list('abcdefgh'))


def test_broken_captions_are_named():
    text = TextFeatures(torch.zeros(3, 2))
    check_texts(text, [5, 6, 7])
    text.embeds[1, 1] = torch.nan
    with pytest.raises(ValueError, match=r'captions \[6\] .* 1 of 3 in this'):
        check_texts(text, [5, 6, 7])
