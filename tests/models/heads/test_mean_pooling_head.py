"""Mean pooling against its formula in loops."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.heads import MeanPoolingHead
from tests.models.tiny import random_features


@pytest.mark.parametrize('sizes', [(1, 1), (2, 7), (7, 2)], ids=str)
def test_scores_are_masked_means(sizes: tuple[int, int]) -> None:
    text, video = random_features(*sizes)
    got = MeanPoolingHead()(text, video)
    for i, sentence in enumerate(text.embeds):
        for j, frames in enumerate(video.frames):
            real = [
                frame / frame.norm()
                for frame, keep in zip(
                    frames, video.frame_mask[j], strict=True
                )
                if keep
            ]
            mean = sum(real) / len(real)
            expected = sentence @ mean / sentence.norm() / mean.norm()
            torch.testing.assert_close(got[i, j], expected)


def test_scores_to_watch() -> None:
    text, video = random_features(5, 5)
    head = MeanPoolingHead(loss_match=dict(type='InfoNCELoss'))
    whole = head(text, video)
    losses = head.loss(text, video)
    torch.testing.assert_close(losses['pos_score'], whole.diagonal().mean())
    off = whole[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(losses['neg_score'], off.mean())
