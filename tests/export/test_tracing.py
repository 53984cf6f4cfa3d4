"""Operations that are replaced on the way to ONNX."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from eaglenet_mm.export.exported_file import suited_to_onnx
from eaglenet_mm.export.program import Program, trace


class Written(nn.Module):
    """Applies a function that writes in place to a copy of its input."""

    def __init__(self, write: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.write = write

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        target = target.clone()
        self.write(target, source)
        return target


def one_place(target: Tensor, source: Tensor) -> None:
    target[:, 1].copy_(source[:, 0])


def last_place(target: Tensor, source: Tensor) -> None:
    target[:, -1].copy_(source[:, 0])


def front(target: Tensor, source: Tensor) -> None:
    target[:, :2].copy_(source[:, :1])


def back(target: Tensor, source: Tensor) -> None:
    target[:, -2:].copy_(source[:, :2])


def middle(target: Tensor, source: Tensor) -> None:
    target[:, 1:3].copy_(source[:, :2])


def every_second(target: Tensor, source: Tensor) -> None:
    target[:, ::2].copy_(source[:, :2])


def everything(target: Tensor, source: Tensor) -> None:
    target.copy_(source[:, :1])


@pytest.mark.parametrize(
    'write',
    [
        one_place,
        middle,
        every_second,
        *(
            pytest.param(write, marks=pytest.mark.nightly)
            for write in (last_place, front, back, everything)
        ),
    ],
)
def test_writing_in_place(
    write: Callable[[Tensor, Tensor], None],
) -> None:
    def draw(rows: int) -> tuple[Tensor, Tensor]:
        return torch.randn(rows, 4, 5), torch.randn(rows, 3, 5)

    program = Program(
        name='written',
        module=Written(write).eval(),
        input_names=['target', 'source'],
        output_names=['written'],
        axes=({0: 'rows'}, {0: 'rows'}),
        draw=draw,
        sizes=dict(rows=3),
        other_sizes=[],
    )
    exported, _ = trace(program)
    suited = suited_to_onnx(exported)
    left = {str(node.target) for node in suited.graph.nodes}
    assert 'aten.select_scatter.default' not in left
    assert not any('copy' in target for target in left)
    assert ('aten.slice_scatter.default' in left) == (write is every_second)
    for rows in (1, 2, 7):
        arguments = draw(rows)
        (wanted,) = program.run(arguments)
        assert suited.module()(*arguments).equal(wanted)
        assert not wanted.equal(arguments[0])
