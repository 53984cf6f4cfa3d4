"""Choice, pooling and masks of what backbones give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eaglenet_mm.models.encoders.registered_encoder import (
    main_tensor,
    pool_frames,
    pool_mask,
    pool_steps,
    repeat_last_real,
    unused_parameters,
)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def test_main_tensor_is_the_deepest() -> None:
    stages = (zeros(2, 8, 4, 4), zeros(2, 16, 2, 2))
    assert main_tensor(stages) is stages[1]
    pathways = [zeros(1, 32, 4, 2, 2), zeros(1, 4, 8, 2, 2)]
    assert main_tensor(pathways) is pathways[0]
    mvit = [[zeros(1, 12, 4, 2, 2), zeros(1, 12)]]
    assert main_tensor(mvit) is mvit[0][0]
    layers = (zeros(2, 5, 8), zeros(2, 5, 8))
    assert main_tensor(dict(tokens=layers)) is layers[1]


@pytest.mark.parametrize('output', [None, (), zeros(3), [zeros(1)] * 2])
def test_no_features(output: object) -> None:
    with pytest.raises(ValueError, match='tensor of 2 to 5 axes'):
        main_tensor(output)


@pytest.mark.parametrize('shape', [(6, 5), (6, 7, 5), (6, 5, 2, 3)])
def test_pool_frames(shape: tuple[int, ...]) -> None:
    feats = torch.randn(shape)
    pooled = pool_frames((feats,))
    assert pooled.shape == (6, 5)
    places = {2: (), 3: (1,), 4: (2, 3)}[len(shape)]
    expected = feats.mean(dim=places) if places else feats
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(pool_steps(feats), expected.unsqueeze(1))


def test_pool_steps_of_maps() -> None:
    feats = torch.randn(2, 5, 4, 2, 3)
    torch.testing.assert_close(
        pool_steps(feats), feats.mean(dim=(3, 4)).transpose(1, 2)
    )
    with pytest.raises(ValueError, match=r"\(2, 5, 4, 2, 3\).*layout='clip'"):
        pool_frames(feats)


@pytest.mark.parametrize('steps', [1, 2, 3, 5, 8])
def test_pool_mask(steps: int) -> None:
    frames = 8
    for real in range(frames + 1):
        mask = torch.arange(frames) < real
        expected = [
            any(mask[t * frames // steps : -(-(t + 1) * frames // steps)])
            for t in range(steps)
        ]
        assert pool_mask(mask[None], steps).tolist() == [expected]


def test_repeat_last_real() -> None:
    pixels = torch.arange(8.0).view(2, 4, 1, 1, 1)
    mask = torch.tensor(
        [[True, True, False, False], [True, False, True, False]]
    )
    got = repeat_last_real(pixels, mask).flatten(1)
    assert got.tolist() == [[0, 1, 1, 1], [4, 4, 6, 6]]
    assert torch.equal(repeat_last_real(pixels, mask | True), pixels)
    alone = repeat_last_real(pixels, mask & False).flatten(1)
    assert alone.tolist() == [[0] * 4, [4] * 4]


def test_unused_parameters() -> None:
    module = nn.ModuleDict(dict(used=nn.Linear(2, 2), idle=nn.Linear(2, 2)))
    module['idle'].bias.requires_grad_(False)
    output = module['used'](torch.ones(1, 2))
    assert unused_parameters(output, module) == ['idle.weight']
