"""Parts whose checksums are right and whose tensors do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eaglenet_mm.search.errors import DamagedIndexError
from eaglenet_mm.search.index_part import IndexPart
from eaglenet_mm.search.part_file import read_part, write_part
from tests.search.index_parts import make_file, make_moments

Change = Callable[[dict], None]


def change(name: str, to: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def apply(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = to(tensors[name])

    return apply


@pytest.mark.parametrize(
    'spoil',
    [
        change('file_of_row', lambda x: x + 1),
        change('file_of_row', lambda x: x - 1),
        change('spans', lambda x: x[:1]),
        change('spans', lambda x: x[:, :1]),
        change('row_ids', lambda x: x * 0),
        change('row_ids', lambda x: x - 9),
        change('row_ids', lambda x: x.float()),
        change('row_ids', lambda x: x[:0]),
        change('vectors', lambda x: x[:, 0]),
        change('thumbnail_ends', lambda x: x + 1),
        change('thumbnail_ends', lambda x: x.flip(0)),
        change('rows', lambda x: x[:, :-1]),
        lambda tensors: tensors.pop('rows'),
        lambda tensors: tensors.pop('row_ids'),
        lambda tensors: tensors.update(more=torch.zeros(2)),
    ],
)
def test_what_does_not_fit_is_refused(spoil: Change, tmp_path: Path) -> None:
    part = IndexPart.of_files(
        [(make_file(1), make_moments(1, 2))], 3, 'float32'
    )
    path = tmp_path / 'part'
    write_part(part, path)
    assert len(read_part(path)) == 2
    spoil(part.tensors)
    write_part(part, path)
    with pytest.raises(DamagedIndexError, match=str(path)):
        read_part(path)
