"""Chunks change no number, and keep memory to what is promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from eaglenet_mm.models.heads import base_pair_head
from eaglenet_mm.models.heads.eaglenet_head import CHUNK_BYTES
from eaglenet_mm.registry import MODELS
from tests.models.every_head import CASES, build, features, train_once
from tests.models.live_bytes import LiveBytes
from tests.models.tiny import random_features

pytestmark = pytest.mark.gpu

every_head = pytest.mark.parametrize(
    ('name', 'variant'), CASES, ids=[' '.join(case) for case in CASES]
)
MIB = 2**20


@every_head
@torch.no_grad()
def test_chunks_change_no_score(
    name: str,
    variant: str,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = build(name, variant).to(device)
    text, video = (side.to(device) for side in features(9, 8))
    states = head.prepare_text(text), head.prepare_video(video)
    expected = head.score(*states)
    for pairs in (1, 10):
        size = pairs * head.bytes_per_pair(training=False)
        monkeypatch.setitem(base_pair_head.EVALUATION_BYTES, device.type, size)
        torch.testing.assert_close(
            head.score_chunked(*states), expected, rtol=1e-10, atol=1e-10
        )


@every_head
def test_the_budget_changes_no_gradient(
    name: str, variant: str, device: torch.device
) -> None:
    whole = build(name, variant).to(device).train()
    pair = whole.bytes_per_pair(training=True)
    small = build(name, variant, memory_budget=6 * pair).to(device).train()
    small.load_state_dict(whole.state_dict())
    expected, gradients = train_once(whole)
    losses, others = train_once(small)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-9, atol=1e-9)
    for key, value in gradients.items():
        torch.testing.assert_close(others[key], value, rtol=1e-8, atol=1e-8)


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Bytes that tensors take at most beside those there before."""
    if device.type == 'cpu':
        with LiveBytes() as live:
            function()
        return live.peak
    before = torch.cuda.memory_stats()['requested_bytes.all.current']
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    peak = torch.cuda.memory_stats()['requested_bytes.all.peak']
    return peak - before


def wide_head(**options: Any) -> Any:
    return MODELS.build(
        dict(
            type='EagleNetHead',
            embed_dim=256,
            num_frames=12,
            loss_match=dict(type='PairwiseSigmoidLoss'),
            **options,
        )
    )


def test_memory_of_a_training_step(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget, a chunk and its backward pass, and no more per pair."""
    chunk = 8 * MIB
    monkeypatch.setitem(CHUNK_BYTES, device.type, chunk)
    # what cuBLASLt takes for a product with a bias, and gives back
    workspace = 0
    if device.type == 'cuda':
        left, right = torch.ones(2, 64, 64, device=device)
        torch.addmm(left[0], left, right)
        workspace = peak_bytes(
            lambda: torch.addmm(left[0], left, right), device
        )

    def step(budget: int, batch: int) -> int:
        head = wide_head(memory_budget=budget).to(device).train()
        text, video = (
            x.to(device)
            for x in random_features(
                batch, batch, frames=12, width=256, dtype=torch.float32
            )
        )
        for parameter in head.parameters():
            parameter.grad = torch.zeros_like(parameter)

        def run() -> None:
            losses = head.loss(text, video)
            sum(v for k, v in losses.items() if 'loss' in k).backward()

        if device.type == 'cuda':
            run()  # cuBLAS takes memory of its own, once
        return peak_bytes(run, device) - workspace

    budget, batch = 24 * MIB, 24
    pairs = batch**2 * wide_head().bytes_per_pair(training=True)
    # beside them prepared sides and gradients, which grow with the batch
    limit = budget + 2 * chunk + 8 * MIB
    assert step(budget, batch) < limit
    assert step(10**9, batch) > pairs > limit
