"""Encoders, micro-batches and mixed precision on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.registry import MODELS, OPTIM_WRAPPERS
from tests.models.every_head import config_of
from tests.models.precision import ERRORS, outcome
from tests.models.tiny import (
    eaglenet_head,
    random_features,
    tiny_inputs,
    tiny_retriever,
)

pytestmark = pytest.mark.gpu


@torch.no_grad()
def test_encoders_give_the_features_of_the_cpu(device: torch.device) -> None:
    torch.manual_seed(0)
    model = tiny_retriever(config_of('TS2NetHead', '')).eval()
    inputs = tiny_inputs(5)
    expected = model(inputs, mode='tensor')
    moved = {name: value.to(device) for name, value in inputs.items()}
    got = model.to(device)(moved, mode='tensor')
    for ours, theirs in zip(got, expected, strict=True):
        for value, golden in zip(
            ours.tensors(), theirs.tensors(), strict=True
        ):
            assert value.device.type == device.type
            torch.testing.assert_close(
                value.cpu(), golden, rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize(
    'head',
    [eaglenet_head(), config_of('WTIHead', ''), config_of('TS2NetHead', '')],
    ids=['EagleNet', 'WTI', 'TS2Net'],
)
def test_micro_batches_change_no_gradient(
    head: dict, device: torch.device
) -> None:
    def step(size: int | None) -> tuple[dict, dict]:
        torch.manual_seed(0)
        model = tiny_retriever(head).double().to(device).train()
        model.encoder_micro_batch = size
        inputs = {
            name: (x.double() if x.is_floating_point() else x).to(device)
            for name, x in tiny_inputs(5).items()
        }
        losses = model(inputs, mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        return losses, {k: p.grad for k, p in model.named_parameters()}

    (losses, gradients), (expected, whole) = step(2), step(None)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-9, atol=1e-12)
    for key, value in whole.items():
        torch.testing.assert_close(
            gradients[key], value, rtol=1e-7, atol=1e-10
        )


class HeadAlone(torch.nn.Module):
    """What an optimizer wrapper takes for a model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head: Any = MODELS.build(eaglenet_head())

    def wrapper(self, device: torch.device, scale: float) -> Any:
        """Mixed precision as ``--amp`` chooses it, with steps of size 1."""
        config = dict(type='AutocastOptimWrapper')
        if device.type == 'cuda':
            config = dict(
                type='AmpOptimWrapper', loss_scale=dict(init_scale=scale)
            )
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        return OPTIM_WRAPPERS.build(
            config, default_args=dict(optimizer=optimizer)
        )

    def step(self, device: torch.device, scale: float) -> dict[str, Tensor]:
        """Train once; tell how far every parameter has moved."""
        self.to(device).train()
        before = {k: p.clone() for k, p in self.head.named_parameters()}
        wrapper = self.wrapper(device, scale)
        text, video = (
            side.to(device)
            for side in random_features(4, 4, dtype=torch.float32)
        )
        with wrapper.optim_context(self):
            losses = self.head.loss(text, video)
        wrapper.update_params(sum(v for k, v in losses.items() if 'loss' in k))
        return {
            key: (value - self.head.get_parameter(key)).detach().cpu()
            for key, value in before.items()
        }


def test_a_step_in_mixed_precision(device: torch.device) -> None:
    """The gradient is that of float64, whatever the loss was scaled by."""
    *_, gradients = outcome(
        HeadAlone().head, torch.device('cpu'), torch.float64, low=False
    )
    moved: dict[str, Tensor] = {}
    # a scale too large for float16 leaves all as it was, as it should
    for scale in (2.0**30, 2.0**14, 2.0**10, 2.0**6):
        moved = HeadAlone().step(device, scale)
        if any(bool(value.any()) for value in moved.values()):
            break
    dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
    assert (scale < 2.0**30) == (dtype is torch.float16)
    largest = max(float(x.norm()) for x in gradients.values())
    for key, value in gradients.items():
        limit = ERRORS[dtype][2] * max(float(value.norm()), 0.05 * largest)
        assert (moved[key].double() - value).norm() < limit, key
