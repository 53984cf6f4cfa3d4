"""Losses on score matrices against their formulas in loops."""

from __future__ import annotations

import math

import pytest
import torch

from eaglenet_mm.models.heads.wti_head import WeightedTokens
from eaglenet_mm.models.layers import KeyedRandom
from eaglenet_mm.models.losses import (
    ChannelDecorrelationLoss,
    InfoNCELoss,
    PairwiseSigmoidLoss,
)


@pytest.mark.parametrize('size', [1, 7])
def test_sigmoid_loss_in_loops(size: int) -> None:
    scores = torch.rand(size, size, dtype=torch.float64) * 2 - 1
    loss = PairwiseSigmoidLoss(2.0, -3.0, loss_weight=0.5).double()
    expected = 0.0
    for i in range(size):
        for j in range(size):
            z = math.exp(2.0) * float(scores[i, j]) - 3.0
            sign = 1 if i == j else -1
            expected += math.log1p(math.exp(-sign * z))
    assert float(loss(scores)) == pytest.approx(0.5 * expected / size)


@pytest.mark.parametrize('size', [1, 7])
def test_info_nce_in_loops(size: int) -> None:
    scores = torch.rand(size, size, dtype=torch.float64) * 2 - 1
    loss = InfoNCELoss(init_scale=5.0, loss_weight=3.0).double()
    expected = 0.0
    for matrix in (scores.tolist(), scores.T.tolist()):
        for i, row in enumerate(matrix):
            total = sum(math.exp(5.0 * value) for value in row)
            expected -= math.log(math.exp(5.0 * row[i]) / total) / size / 2
    assert float(loss(scores)) == pytest.approx(3.0 * expected)


def test_sigmoid_loss_is_finite_at_the_extremes() -> None:
    scores = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], requires_grad=True)
    loss = PairwiseSigmoidLoss()(scores)
    loss.backward()
    z = math.exp(4.77)
    expected = ((z + 12.93) * 2 + (z - 12.93) * 2) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize('loss_type', [PairwiseSigmoidLoss, InfoNCELoss])
def test_fixed_parameters(loss_type: type) -> None:
    loss = loss_type(learnable=False)
    scores = torch.rand(3, 3, requires_grad=True)
    loss(scores).backward()
    assert all(p.grad is None for p in loss.parameters())


@pytest.mark.parametrize('loss_type', [PairwiseSigmoidLoss, InfoNCELoss])
def test_half_precision_is_lifted(loss_type: type) -> None:
    scores = torch.rand(3, 3).half()
    loss = loss_type()
    torch.testing.assert_close(loss(scores), loss(scores.float()))


def test_clamp_keeps_the_scale_under_its_bound() -> None:
    loss = InfoNCELoss(init_scale=50.0, max_scale=20.0)
    loss.clamp_()
    assert float(loss.log_scale.exp()) == pytest.approx(20.0)
    loss.log_scale.data.fill_(1.0)
    loss.clamp_()
    assert float(loss.log_scale) == 1.0


@pytest.mark.parametrize('loss_type', [PairwiseSigmoidLoss, InfoNCELoss])
def test_a_matrix_must_be_square(loss_type: type) -> None:
    with pytest.raises(ValueError, match=r'square matrix .* shape \(3, 4\)'):
        loss_type()(torch.rand(3, 4))


@pytest.mark.parametrize('name', ['init_scale', 'max_scale'])
def test_scales_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f'{name}=0'):
        InfoNCELoss(**{name: 0})


@pytest.mark.parametrize('pairing', ['best', 'weighted'])
def test_a_constant_channel_is_no_end(pairing: str) -> None:
    """All frames may choose one word, so that its channels do not vary."""
    torch.manual_seed(0)
    frames = torch.randn(4, 3, 8)
    words = torch.randn(1, 1, 8).repeat(4, 2, 1).requires_grad_()
    mask = torch.ones(4, 2, dtype=torch.bool)
    text = WeightedTokens(words, mask / 2, mask)
    mask = torch.ones(4, 3, dtype=torch.bool)
    video = WeightedTokens(frames, mask / 3, mask)
    loss = ChannelDecorrelationLoss(pairing=pairing)(
        text, video, KeyedRandom(0)
    )
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(words.grad.isfinite().all())
    with pytest.raises(ValueError, match='at least two pairs'):
        ChannelDecorrelationLoss(pairing='sample')(
            text.index_select(slice(0, 1)),
            video.index_select(slice(0, 1)),
            KeyedRandom(0),
        )
