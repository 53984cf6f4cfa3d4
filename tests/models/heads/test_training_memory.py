"""What a training step holds in memory at once grows with the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eaglenet_mm.models.heads import pair_grid
from eaglenet_mm.models.heads.eaglenet_head import CHUNK_BYTES
from eaglenet_mm.models.layers import keyed_random
from eaglenet_mm.models.losses import energy_matching_loss
from eaglenet_mm.registry import MODELS
from tests.models.live_bytes import LiveBytes
from tests.models.tiny import FRAMES, eaglenet_head, random_features

MIB = 2**20


def eaglenet() -> dict:
    return eaglenet_head(embed_dim=32, memory_budget=600_000)


def t_mass() -> dict:
    return dict(
        type='TMASSHead',
        embed_dim=32,
        num_frames=FRAMES,
        loss_match=dict(type='InfoNCELoss'),
        memory_budget=200_000,
    )


def peak_of_step(batch: int, config: dict) -> int:
    """Live bytes of a step at most, forward and backward."""
    torch.manual_seed(0)
    head = MODELS.build(config).train()
    text, video = random_features(batch, batch, width=32, dtype=torch.float32)
    text.embeds.requires_grad_()
    video.frames.requires_grad_()
    with LiveBytes() as live:
        losses = head.loss(text, video)
        sum(v for k, v in losses.items() if 'loss' in k).backward()
    return live.peak


@pytest.mark.parametrize('config', [eaglenet(), t_mass()])
def test_peak_grows_at_most_with_the_batch(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pieces of constant size would hide how the rest grows
    monkeypatch.setitem(energy_matching_loss.CHUNK_BYTES, 'cpu', 50_000)
    monkeypatch.setattr(keyed_random, '_BLOCK', 1000)
    small, large = (peak_of_step(batch, config) for batch in (16, 72))
    # all pairs at once would grow twentyfold
    assert large <= 2 * small


def peaks_of_mean_pooling(batch: int, loss: dict) -> tuple[int, int]:
    """Live bytes at most beside the scores, forward and in all."""
    torch.manual_seed(0)
    head = MODELS.build(dict(type='MeanPoolingHead', loss_match=loss))
    text, video = random_features(batch, batch, dtype=torch.float32)
    ids = torch.arange(batch) // 3
    text.embeds.requires_grad_()
    with LiveBytes() as live:
        value = head.loss(text, replace(video, video_ids=ids))['loss_match']
        forward = live.peak
        value.backward()
    scores = 4 * batch * batch
    # the backward pass needs the gradient of the scores as well
    return forward - scores, live.peak - 2 * scores


@pytest.mark.parametrize(
    ('batch', 'same_video'), [(4096, 'negative'), (2048, 'positive')]
)
@pytest.mark.parametrize('loss', ['PairwiseSigmoidLoss', 'InfoNCELoss'])
def test_a_large_batch_holds_its_scores_once(
    loss: str, batch: int, same_video: str
) -> None:
    """4096 pairs: 64 MiB of scores, and little beside them."""
    config = dict(type=loss, same_video=same_video)
    half = peaks_of_mean_pooling(batch // 2, config)
    for peak, smaller in zip(
        peaks_of_mean_pooling(batch, config), half, strict=True
    ):
        assert peak <= 12 * MIB
        assert peak <= 2 * smaller


@pytest.mark.parametrize(('budget', 'expected'), [(600_000, 4), (10**9, 0)])
def test_free_memory_goes_back_where_chunks_are_computed_again(
    budget: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward, and not at all where everything is kept."""
    released: list[None] = []
    monkeypatch.setattr(
        pair_grid, 'release_free_heap', lambda: released.append(None)
    )
    monkeypatch.setitem(CHUNK_BYTES, 'cpu', 200_000)
    head = MODELS.build(eaglenet_head(memory_budget=budget)).train()
    text, video = random_features(32, 32, dtype=torch.float32)
    losses = head.loss(text, video)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert (len(released) >= expected) if expected else not released
