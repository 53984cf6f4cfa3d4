"""Encoding in parts: memory, random numbers, precision, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eaglenet_mm.models.retrievers.micro_batches import (
    check_batch_norm,
    encode_in_micro_batches,
)
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.live_bytes import LiveBytes
from tests.models.tiny import FRAMES, tiny_inputs, tiny_retriever


class Words(nn.Module):
    """A text encoder with dropout that notes how much it gets at once."""

    def __init__(self, width: int = 8, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.first = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, width)
        self.sizes: list[int] = []

    def forward(self, token_ids: Tensor) -> TextFeatures:
        self.sizes.append(len(token_ids))
        hidden = self.first(self.embedding(token_ids).mean(1)).tanh()
        return TextFeatures(self.last(self.dropout(hidden)))


def token_ids(count: int) -> Tensor:
    return torch.randint(20, (count, 5))


def gradients(module: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Gradient of a loss in which all rows meet."""
    loss = (output @ output.T).softmax(-1).diagonal().log().sum()
    loss.backward()
    found = {k: p.grad.clone() for k, p in module.named_parameters()}
    module.zero_grad()
    return found


def live_bytes(size: int | None, count: int) -> tuple[int, int, int, int]:
    """Measure an encoding of both sides and its backward pass.

    Returns:
        tuple: Bytes of the features; bytes kept beside them for backward;
        the peak of the forward pass; the peak of both.
    """
    torch.manual_seed(0)
    model = tiny_retriever(dict(type='MeanPoolingHead')).double().train()
    inputs = {
        name: x.double() if x.is_floating_point() else x
        for name, x in tiny_inputs(count).items()
    }
    model.encoder_micro_batch = size
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        text, video = model._encode_for_loss(inputs)
        features = sum(
            x.untyped_storage().nbytes() for x in (text.embeds, video.frames)
        )
        kept, forward = live.now - features, live.peak
        (text.embeds.sum() + video.frames.square().sum()).backward()
    return features, kept, forward, live.peak


def test_memory_is_that_of_a_part() -> None:
    """Between the passes nothing is kept; a pass needs one part at a time."""
    features, kept, forward, peak = live_bytes(2, 4)
    thrice, kept_thrice, forward_thrice, peak_thrice = live_bytes(2, 12)
    _, whole, whole_forward, whole_peak = live_bytes(None, 12)
    assert thrice == 3 * features
    assert kept <= 4 * FRAMES  # the masks
    assert kept_thrice <= 12 * FRAMES
    # features and their gradients, each in parts and joined
    assert forward_thrice - forward <= 2 * (thrice - features)
    assert peak_thrice - peak <= 5 * (thrice - features)
    assert peak_thrice <= live_bytes(None, 2)[3] + 5 * thrice
    # what the whole batch takes, so that the checks can fail
    assert whole > 100 * thrice
    assert whole_forward > 10 * forward_thrice
    assert whole_peak > 5 * peak_thrice


def test_parts_are_encoded_twice_and_one_at_a_time() -> None:
    encoder = Words()
    features = encode_in_micro_batches(encoder, (token_ids(7),), 3)
    assert encoder.sizes == [3, 3, 1]
    features.embeds.sum().backward()
    assert sorted(encoder.sizes) == [1, 1, 3, 3, 3, 3]


def test_a_small_batch_is_encoded_as_always() -> None:
    encoder = Words()
    features = encode_in_micro_batches(encoder, (token_ids(3),), 3)
    features.embeds.sum().backward()
    assert encoder.sizes == [3]


def test_nothing_is_computed_again_without_gradient() -> None:
    encoder = Words().requires_grad_(False)
    features = encode_in_micro_batches(encoder, (token_ids(5),), 2)
    assert not features.embeds.requires_grad
    assert encoder.sizes == [2, 2, 1]
    encoder.requires_grad_(True)
    with torch.no_grad():
        features = encode_in_micro_batches(encoder, (token_ids(5),), 2)
    assert not features.embeds.requires_grad
    (features.embeds @ torch.ones(8, 1, requires_grad=True)).sum().backward()
    assert encoder.sizes == [2, 2, 1] * 2


def test_dropout_of_both_passes_is_the_same() -> None:
    encoder = Words().double()
    ids = token_ids(7)
    results = []
    for cached in (False, True):
        torch.manual_seed(1)
        if cached:
            feats = encode_in_micro_batches(encoder, (ids,), 3)
        else:
            feats = TextFeatures.cat([encoder(x) for x in ids.split(3)])
        torch.rand(5)  # the head draws as well
        found = gradients(encoder, feats.embeds)
        # backward leaves the generator where it was
        results.append((feats.embeds.detach(), found, torch.rand(3)))
    (plain, expected, after), (cached, found, after_too) = results
    assert torch.equal(plain, cached)
    assert torch.equal(after, after_too)
    assert (plain == plain[0, 0]).sum() < plain.numel()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-12, atol=1e-14
        )


def test_optional_tensors_and_views_pass() -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 6)

        def forward(self, x: Tensor, mask: Tensor) -> VideoFeatures:
            tokens = self.linear(x)  # (B, F, N, D)
            return VideoFeatures(tokens[:, :, 0], mask, tokens[:, :, 1:])

    encoder, x = Frames().double(), torch.randn(5, 2, 3, 4).double()
    mask = torch.rand(5, 2) > 0.5
    found = []
    for video in (
        encoder(x, mask),
        encode_in_micro_batches(encoder, (x, mask), 2),
    ):
        assert torch.equal(video.frame_mask, mask)
        sides = video.frames.flatten(1), video.patches.flatten(1)
        found.append(gradients(encoder, torch.cat(sides, dim=1)))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_autocast_adds_gradients_up_in_float32() -> None:
    """Many parts are no less exact than the whole batch."""
    encoder = Words(32, dropout=0.0)
    ids = token_ids(256)
    exact = gradients(encoder, encoder(ids).embeds)
    errors = []
    for size in (256, 1):
        with torch.autocast('cpu', torch.bfloat16):
            feats = encode_in_micro_batches(encoder, (ids,), size)
        found = gradients(encoder, feats.embeds.float())
        errors.append(
            {k: float((found[k] - g).norm()) for k, g in exact.items()}
        )
    assert torch.is_autocast_cache_enabled()
    whole, parts = errors
    for name, error in parts.items():
        assert error <= 1.5 * whole[name] + 1e-6 * exact[name].norm(), name


def test_batch_norm_in_training_is_refused() -> None:
    encoder = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"'video\.2' is a BatchNorm1d"):
        check_batch_norm(encoder.train(), 'video')
    check_batch_norm(encoder.eval(), 'video')
    check_batch_norm(nn.LayerNorm(3), 'video')
    with pytest.raises(ValueError, match=r"'video' is a BatchNorm2d"):
        check_batch_norm(nn.BatchNorm2d(3), 'video')
