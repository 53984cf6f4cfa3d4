"""States of heads as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from eaglenet_mm.search.state_rows import flatten_state, restore_state
from eaglenet_mm.structures import Features


@dataclass
class Inner(Features):
    values: torch.Tensor
    absent: torch.Tensor | None = None


@dataclass
class Outer(Features):
    frames: torch.Tensor
    inner: Inner
    mask: torch.Tensor | None = None


def make_state(rows: int) -> Outer:
    return Outer(torch.rand(rows, 2), Inner(torch.rand(rows, 3)))


def test_round_trip() -> None:
    state = make_state(4)
    tensors = flatten_state(state)
    assert list(tensors) == ['frames', 'inner.values']
    found = restore_state(make_state(1), tensors)
    assert isinstance(found.inner, Inner)
    assert torch.equal(found.frames, state.frames)
    assert torch.equal(found.inner.values, state.inner.values)
    assert found.mask is None
    assert found.inner.absent is None


def test_a_missing_tensor() -> None:
    with pytest.raises(KeyError, match=r'inner\.values'):
        restore_state(make_state(1), {'frames': torch.rand(4, 2)})
