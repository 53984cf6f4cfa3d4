"""Pairs of one video: every loss against its formula in loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.models.layers import KeyedRandom
from eaglenet_mm.models.losses import (
    EnergyMatchingLoss,
    InfoNCELoss,
    KeyedNoise,
    PairwiseSigmoidLoss,
    score_losses,
)
from eaglenet_mm.models.losses.score_losses import SAME_VIDEO
from tests.models.tiny import nightly

#: Videos of the texts: three captions of one, two of another.
VIDEOS = (7, -3, 7, 0, -3, 7, 2**62)
#: Several right videos of a text; text 1 fits video 2, not the reverse.
ONE_SIDED = ((0, 2), (1, 2), (0, 2), (3,), (4, 0))


def matrix_of(videos: tuple[int, ...] = VIDEOS) -> Tensor:
    ids = torch.tensor(videos)
    return ids[:, None] == ids


def one_sided() -> Tensor:
    matrix = torch.zeros(5, 5, dtype=torch.bool)
    for text, right in enumerate(ONE_SIDED):
        matrix[text, list(right)] = True
    return matrix


def kind_of(i: int, j: int, same: Tensor, same_video: str) -> str:
    """Tell what a pair is, ``'positive'``, ``'negative'`` or ``'ignore'``."""
    if i == j:
        return 'positive'
    return same_video if same[i, j] else 'negative'


def sigmoid_in_loops(
    scores: Tensor, same: Tensor, same_video: str, scale: float, bias: float
) -> Tensor:
    total = scores.new_zeros(())
    for i in range(len(scores)):
        for j in range(len(scores)):
            kind = kind_of(i, j, same, same_video)
            if kind != 'ignore':
                sign = 1 if kind == 'positive' else -1
                z = scale * scores[i, j] + bias
                total = total + torch.log1p(torch.exp(-sign * z))
    return total / len(scores)


def info_nce_in_loops(
    scores: Tensor, same: Tensor, same_video: str, scale: float
) -> Tensor:
    size, total = len(scores), scores.new_zeros(())
    for matrix, pairs in ((scores, same), (scores.T, same.T)):
        for i in range(size):
            kinds = [kind_of(i, j, pairs, same_video) for j in range(size)]
            denominator = scores.new_zeros(())
            for j in range(size):
                if kinds[j] != 'ignore':
                    denominator = denominator + torch.exp(scale * matrix[i, j])
            right = [j for j in range(size) if kinds[j] == 'positive']
            for j in right:
                share = torch.exp(scale * matrix[i, j]) / denominator
                total = total - torch.log(share) / len(right)
    return total / (2 * size)


def sigmoid(same_video: str) -> tuple[Any, Any]:
    loss = PairwiseSigmoidLoss(1.5, -2.0, same_video=same_video).double()
    return loss, lambda scores, same: sigmoid_in_loops(
        scores, same, same_video, math.exp(1.5), -2.0
    )


def info_nce(same_video: str) -> tuple[Any, Any]:
    loss = InfoNCELoss(init_scale=5.0, same_video=same_video).double()
    scale = float(
        loss.log_scale.detach().exp()
    )  # rounded when the loss was built
    return loss, lambda scores, same: info_nce_in_loops(
        scores, same, same_video, scale
    )


LOSSES = (sigmoid, info_nce)
every_loss = pytest.mark.parametrize('make', LOSSES)
every_option = pytest.mark.parametrize('same_video', SAME_VIDEO)


def random_scores(size: int) -> Tensor:
    scores = torch.rand(size, size, dtype=torch.float64) * 2 - 1
    return scores.requires_grad_()


@every_loss
@every_option
@pytest.mark.parametrize(
    ('positives', 'same'),
    [
        (torch.tensor(VIDEOS), matrix_of()),
        nightly(matrix_of(), matrix_of()),
        (matrix_of() & ~torch.eye(7, dtype=torch.bool), matrix_of()),
        (one_sided(), one_sided()),
        nightly(torch.zeros(4, dtype=torch.int64), matrix_of((0,) * 4)),
        nightly(torch.arange(5), matrix_of(tuple(range(5)))),
        (torch.zeros(1, dtype=torch.int64), matrix_of((0,))),
    ],
    ids=[
        'numbers', 'matrix', 'empty diagonal', 'one-sided', 'one video',
        'no two', 'one pair',
    ],
)  # fmt: skip
def test_scores_in_loops(
    make: Any,
    same_video: str,
    positives: Tensor,
    same: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, in_loops = make(same_video)
    scores = random_scores(len(same))
    expected = in_loops(scores, same)
    (slopes,) = torch.autograd.grad(expected, scores)
    for numbers in (2**19, 2 * len(same), 1):  # all, two rows, one row
        monkeypatch.setitem(score_losses.BLOCK_NUMBERS, 'cpu', numbers)
        got = loss(scores, positives)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        (got_slopes,) = torch.autograd.grad(got, scores)
        torch.testing.assert_close(got_slopes, slopes, rtol=1e-8, atol=1e-12)


@every_loss
@every_option
def test_the_option_matters(make: Any, same_video: str) -> None:
    """And ignored scores may be anything."""
    loss, _ = make(same_video)
    default, _ = make('negative')
    scores = random_scores(7).detach()
    ids = torch.tensor(VIDEOS)
    equal = torch.equal(loss(scores, ids), default(scores))
    assert equal == (same_video == 'negative')
    if same_video == 'ignore':
        others = matrix_of() & ~torch.eye(7, dtype=torch.bool)
        moved = scores.masked_fill(others, 1e4).requires_grad_()
        got = loss(moved, ids)
        torch.testing.assert_close(got, loss(scores, ids))
        got.backward()
        assert bool((moved.grad[others] == 0).all())
        assert bool(loss.log_scale.grad.isfinite().all())


@every_loss
@every_option
def test_written_gradients(
    make: Any, same_video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scores, their scale and their bias, in blocks of two rows."""
    monkeypatch.setitem(score_losses.BLOCK_NUMBERS, 'cpu', 14)
    loss, _ = make(same_video)
    ids = torch.tensor(VIDEOS)
    names = [name for name, _ in loss.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in loss.parameters()]

    def function(scores: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        return 3 * torch.func.functional_call(loss, named, (scores, ids))

    assert torch.autograd.gradcheck(function, (random_scores(7), *values))
    # scores that are a view with other strides, as some heads give them
    turned = random_scores(7)
    (slopes,) = torch.autograd.grad(loss(turned.T, ids), turned)
    straight = turned.detach().T.contiguous().requires_grad_()
    (expected,) = torch.autograd.grad(loss(straight, ids), straight)
    torch.testing.assert_close(slopes, expected.T)


def test_a_small_loss_keeps_its_digits() -> None:
    """In float32, where it is a small difference of large logits."""
    scores = torch.full((6, 6), 0.875)  # these numbers are exact
    scores.fill_diagonal_(1.0)
    loss = InfoNCELoss()
    loss.log_scale.data.zero_()
    got = loss(64 * scores)
    expected = math.log1p(5 * math.exp(-64 * 0.125))
    assert float(got.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('energy', ['MLPEnergy', 'BilinearEnergy'])
@every_option
@pytest.mark.parametrize(
    'videos', [VIDEOS, nightly(tuple(range(5))), nightly((4,) * 3), (1,)]
)
def test_energies_in_loops(
    energy: str, same_video: str, videos: tuple[int, ...]
) -> None:
    loss = EnergyMatchingLoss(
        8,
        3,
        energy=dict(type=energy),
        sampler=dict(num_steps=3, buffer_size=9),
        regularization=0.3,
        same_video=same_video,
    ).double()
    size, same = len(videos), matrix_of(videos)
    frames = torch.randn(size, 3, 8, dtype=torch.float64, requires_grad=True)
    text = torch.randn(size, 8, dtype=torch.float64, requires_grad=True)
    noise = KeyedNoise(KeyedRandom(3, 0), 'energy')
    got = loss(frames, text, noise, positives=torch.tensor(videos))
    pairs = loss.all_pairs(frames, text)
    kinds: dict[str, list[Tensor]] = {}
    for i in range(size):
        for j in range(size):
            kind = kind_of(i, j, same, same_video)
            kinds.setdefault(kind, []).append(pairs[i, j])
    sampled = loss.energy.matching(
        loss.sampler.replay_video[:size], loss.sampler.replay_text[:size]
    )
    low = torch.stack(kinds['positive'])
    terms = []
    for high in (kinds.get('negative'), list(sampled)):
        if high:
            others = torch.stack(high)
            squares = (low**2).mean() + (others**2).mean()
            terms.append(low.mean() - others.mean() + 0.3 * squares)
    expected = sum(terms) / len(terms)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    inputs = [frames, text, *loss.parameters()]
    for one, other in zip(
        torch.autograd.grad(got, inputs),
        torch.autograd.grad(expected, inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def energies(same_video: str) -> Any:
    loss = EnergyMatchingLoss(8, 3, same_video=same_video)
    sides = torch.randn(3, 3, 8), torch.randn(3, 8)
    noise = KeyedNoise(KeyedRandom(3, 0), 'energy')
    return lambda positives: loss(*sides, noise, positives=positives)


def of_scores(make: Any) -> Any:
    def build(same_video: str) -> Any:
        loss, _ = make(same_video)
        return lambda positives: loss(torch.rand(3, 3), positives)

    return build


@pytest.mark.parametrize(
    'make', [of_scores(sigmoid), of_scores(info_nce), energies]
)
def test_what_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"'positive'\), but is 'same'"):
        make('same')
    for same_video in SAME_VIDEO:
        loss = make(same_video)
        if same_video != 'negative':
            message = rf"same_video='{same_video}' needs to know .* 'video_id'"
            with pytest.raises(ValueError, match=message):
                loss(None)
        with pytest.raises(ValueError, match=r'shape \(3,\) .* have \(4,\)'):
            loss(torch.arange(4))
        with pytest.raises(ValueError, match=r'\(3, 3\) .* have \(2, 3\)'):
            loss(torch.ones(2, 3, dtype=torch.bool))
        with pytest.raises(ValueError, match=r'\(3,\) .* have \(3, 3\)'):
            loss(torch.ones(3, 3, dtype=torch.int64))
        with pytest.raises(TypeError, match=r'the type torch\.float32'):
            loss(torch.ones(3, 3))
