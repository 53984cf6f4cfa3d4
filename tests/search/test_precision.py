"""How exactly numbers are kept."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.search.precision import PRECISIONS, pack, unpack


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'values': torch.randn(4, 3, 64, generator=generator),
        'scales': torch.randn(4, 3, generator=generator),
        'mask': torch.tensor([[True, False]] * 4),
        'places': torch.arange(4),
    }


@pytest.mark.parametrize(
    ('precision', 'tolerance'),
    [('float32', 0.0), ('float16', 1e-3), ('int8', 1 / 127)],
)
def test_round_trip(
    tensors: dict[str, torch.Tensor], precision: str, tolerance: float
) -> None:
    found = unpack(pack(tensors, precision))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        difference = (found[name].float() - tensor.float()).abs()
        limit = tensor.float().abs().amax(dim=-1, keepdim=True) * tolerance
        assert bool((difference <= limit).all()), name


def test_int8_takes_a_quarter(tensors: dict[str, torch.Tensor]) -> None:
    sizes = {
        precision: sum(
            tensor.nbytes
            for name, tensor in pack(tensors, precision).items()
            if name.startswith('values')
        )
        for precision in PRECISIONS
    }
    assert sizes['float16'] * 2 == sizes['float32']
    assert sizes['int8'] < 0.27 * sizes['float32']


def test_zero_vectors_stay_zero() -> None:
    found = unpack(pack({'values': torch.zeros(2, 5)}, 'int8'))
    assert torch.equal(found['values'], torch.zeros(2, 5))


def test_too_large_for_half() -> None:
    with pytest.raises(ValueError, match=r"'values' reaches 1e\+05.*int8"):
        pack({'values': torch.tensor([[1e5]])}, 'float16')


def test_unknown_precision() -> None:
    with pytest.raises(ValueError, match=r"float32, .*but is 'int4'"):
        pack({}, 'int4')


def test_single_numbers_and_endless_ones_in_int8() -> None:
    single = {'values': torch.tensor([1.5, 300.25])}
    assert torch.equal(
        unpack(pack(single, 'int8'))['values'], single['values']
    )
    with pytest.raises(ValueError, match="'values' is not finite"):
        pack({'values': torch.tensor([[1.0, torch.inf]])}, 'int8')
