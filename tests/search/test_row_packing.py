"""Several tensors as one run of bytes a row."""

from __future__ import annotations

import json

import pytest
import torch

from eaglenet_mm.search.errors import DamagedIndexError
from eaglenet_mm.search.row_packing import (
    check_layout,
    pack_rows,
    unpack_rows,
)


@pytest.mark.parametrize('rows', [1, 5])
def test_round_trip(rows: int) -> None:
    """Also of a single row, and of widths that leave others unaligned."""
    tensors = {
        'a': torch.rand(rows, 3) > 0.5,
        'b': torch.randn(rows, 2, 3),
        'c': torch.randn(rows, 5).half(),
        'd': torch.arange(rows),
        'e': torch.randint(-128, 127, (rows, 7), dtype=torch.int8),
        'f': torch.randn(rows, 4).double().t().contiguous().t(),
        'g': torch.randn(rows, 1, 2).bfloat16(),
    }
    packed, layout = pack_rows(tensors)
    assert packed.shape == (rows, 3 + 24 + 10 + 8 + 7 + 32 + 4)
    layout = check_layout(json.loads(json.dumps(layout)), 88, 'file')
    found = unpack_rows(packed, layout)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    'layout',
    [
        None,
        'text',
        [['a', 'float32']],
        [['a', 'storage', [2]]],
        [['a', 'float32', [3]]],
        [['a', 'float32', [-1]], ['b', 'float32', [3]]],
        [['a', 'float32', ['x']]],
    ],
)
def test_what_describes_no_rows(layout: object) -> None:
    with pytest.raises(DamagedIndexError, match='file: '):
        check_layout(layout, 8, 'file')
