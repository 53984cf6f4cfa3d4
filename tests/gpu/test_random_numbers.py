"""Keyed random numbers are those of the CPU, whatever the device."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.layers import KeyedRandom, PairRandom

pytestmark = pytest.mark.gpu


def pairs() -> PairRandom:
    return PairRandom(KeyedRandom(7, 3), range(0, 60, 2), range(5, 40))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_the_same_to_the_last_bit(
    device: torch.device, dtype: torch.dtype
) -> None:
    here = torch.zeros((), dtype=dtype)
    there = here.to(device)
    for draw in (
        lambda like: pairs().uniform('a', 5, 7, like=like),
        lambda like: pairs().dropout_mask('b', 9, rate=0.3, like=like),
        lambda like: KeyedRandom(7).permutation('c', 50, like),
    ):
        expected, got = draw(here), draw(there)
        assert got.device.type == device.type
        assert torch.equal(got.cpu(), expected)
    uniform = pairs().uniform('a', 5, 7, like=there)
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() <= 1  # float16 rounds up


def test_normal_numbers_to_rounding(device: torch.device) -> None:
    """Logarithm, sine and cosine differ in their last bits."""
    here = torch.zeros(())
    expected = pairs().normal('a', 5, 7, like=here)
    got = pairs().normal('a', 5, 7, like=here.to(device))
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-5, atol=1e-6)
