"""Every head on the device gives the float32 numbers of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden.cases import gradient_scale
from tests.models.every_head import CASES, build, features, train_once
from tests.models.tiny import eaglenet_head

pytestmark = pytest.mark.gpu

#: Relative to the largest magnitude of an array.
TOLERANCE = 1e-5
ENERGIES = [
    dict(type='MLPEnergy'),
    dict(type='MLPEnergy', reduction='max'),
    dict(type='BilinearEnergy'),
]
GRAPHS = [dict(type='rgat'), dict(type='gat', version=2)]


def check(build_head: Callable[[], Any], device: torch.device) -> None:
    """Compare scores, losses and gradients with those of the CPU."""
    expected, got = (
        outcome(build_head().to(place, torch.float32))
        for place in (torch.device('cpu'), device)
    )
    scores, losses, gradients = expected
    compare('scores', got[0], scores, device)
    for key, value in losses.items():
        compare(key, got[1][key], value, device)
    arrays = {
        key: value.numpy()
        for key, value in gradients.items()
        if value is not None
    }
    for key, array in arrays.items():
        scale = gradient_scale(array, list(arrays.values()))
        compare(key, got[2][key], gradients[key], device, scale)


def outcome(head: Any) -> tuple[Tensor, dict, dict]:
    """Scores in evaluation; losses and gradients of a training step."""
    device = next(head.parameters()).device
    text, video = (
        side.to(device).to(torch.float32) for side in features(7, 5)
    )
    scores = head.score_chunked(
        head.prepare_text(text), head.prepare_video(video)
    )
    return scores, *train_once(head.train())


def compare(
    name: str,
    got: Tensor,
    expected: Tensor,
    device: torch.device,
    scale: float | None = None,
) -> None:
    assert got.device.type == device.type, name
    assert got.dtype == expected.dtype, name
    got, expected = got.detach().cpu(), expected.detach()
    error = float((got - expected).abs().max())
    error /= scale or float(expected.abs().max())
    assert error <= TOLERANCE, (name, error)


@pytest.mark.parametrize(
    ('name', 'variant'), CASES, ids=[' '.join(case) for case in CASES]
)
def test_every_head(name: str, variant: str, device: torch.device) -> None:
    check(lambda: build(name, variant), device)


@pytest.mark.parametrize('noise', ['table', 'pair'])
@pytest.mark.parametrize(
    ('energy', 'graph'), list(product(ENERGIES, GRAPHS)), ids=str
)
def test_eaglenet(
    energy: dict, graph: dict, noise: str, device: torch.device
) -> None:
    options = eaglenet_head(
        graph=graph,
        noise=noise,
        use_frame_mask=noise == 'pair',
        loss_energy=dict(
            type='EnergyMatchingLoss',
            energy=energy,
            sampler=dict(num_steps=3, buffer_size=6),
        ),
    )
    options.pop('type')
    check(lambda: build('EagleNetHead', '', **options), device)
