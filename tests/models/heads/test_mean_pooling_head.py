"""Mean pooling against its formula in loops."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.heads import MeanPoolingHead, base_pair_head
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


def test_chunks_and_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base_pair_head.EVALUATION_BYTES, 'cpu', 24)
    text, video = random_features(5, 5)
    head = MeanPoolingHead(loss_match=dict(type='InfoNCELoss'))
    whole = head(text, video)
    chunked = head.score_chunked(
        head.prepare_text(text), head.prepare_video(video)
    )
    torch.testing.assert_close(chunked, whole)
    losses = head.loss(text, video)
    torch.testing.assert_close(losses['pos_score'], whole.diagonal().mean())
    off = whole[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(losses['neg_score'], off.mean())


def test_padded_frames_have_no_influence() -> None:
    text, video = random_features(2, 4)
    before = MeanPoolingHead()(text, video)
    video.frames[1::2, -1] = 1e6
    torch.testing.assert_close(MeanPoolingHead()(text, video), before)
