"""The cheap score every head has."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.heads import MeanPoolingHead, TextProxyHead
from eaglenet_mm.models.heads.base_pair_head import (
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.tiny import eaglenet_head, random_features


@pytest.mark.parametrize(
    'config', [dict(type='MeanPoolingHead'), eaglenet_head()], ids=str
)
def test_cheap_score_is_the_cosine_of_the_masked_mean(config):
    text, video = random_features(4, 5)
    head = MODELS.build(config)
    texts, videos = head.shortlist_text(text), head.shortlist_video(video)
    torch.testing.assert_close(
        texts @ videos.t(), MeanPoolingHead()(text, video)
    )
    for vectors in (texts, videos):
        torch.testing.assert_close(
            vectors.norm(dim=-1), torch.ones(len(vectors)).double()
        )


def test_padded_frames_take_no_part():
    _, video = random_features(1, 4)
    changed = VideoFeatures(video.frames.clone(), video.frame_mask)
    changed.frames[~video.frame_mask] += 5
    assert not torch.equal(changed.frames, video.frames)
    assert torch.equal(
        mean_of_unit_frames(changed), mean_of_unit_frames(video)
    )


def test_empty_items_give_zero():
    mask = torch.tensor([[True, True], [False, False]])
    frames = torch.randn(2, 2, 3)
    frames[0] = 0
    means = mean_of_unit_frames(VideoFeatures(frames, mask))
    assert torch.equal(means, torch.zeros(2, 3))
    assert not unit_sentences(TextFeatures(torch.zeros(2, 3))).any()


def test_a_head_says_what_makes_its_shortlists():
    class Own(MeanPoolingHead):
        def shortlist_video(self, video):
            return super().shortlist_video(video)

    class Named(Own):
        first_stage = 'the first frame'

        def shortlist_text(self, text):
            return super().shortlist_text(text)

    class Further(Own):
        pass

    assert TextProxyHead.first_stage == 'mean pooling'
    assert Own.first_stage == Further.first_stage == 'the vectors of Own'
    assert Named.first_stage == 'the first frame'
