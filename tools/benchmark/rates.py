"""Counting operations, and setting them against what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import seconds
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

#: Sides of the square products whose best rate is the machine's peak.
PEAK_SIZES = {'cpu': (1024, 2048), 'cuda': (4096, 8192)}
GIGA = 1e9


def _matrix_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _added(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    batch = left[0] if len(left) == 3 else 1
    columns = right[-1] if len(right) > 1 else 1
    return 2 * batch * left[-2] * left[-1] * columns


def count_flops(run: Callable[[], Any]) -> int:
    """Count the operations of all products of a run.

    Products in place, and of a matrix and a vector, are counted too; torch's
    own table leaves them out. Elementwise operations are not counted.
    """
    aten = torch.ops.aten
    missing = {
        aten.mv: _matrix_vector,
        aten.addmv: _added,
        aten.addmm_: _added,
        aten.baddbmm_: _added,
    }
    with FlopCounterMode(display=False, custom_mapping=missing) as counter:
        run()
    return counter.get_total_flops()


class WrittenBytes(TorchDispatchMode):
    """Adds up the size of every result that an operation writes.

    Views write nothing. What operations read is about as much again, or more.
    """

    #: Hand out memory, or the same memory, without writing.
    SILENT = ('empty', 'new_empty', 'empty_like', '_unsafe_view', 'detach')

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count its results."""
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.SILENT:
            return result
        returns = func._schema.returns
        parts = (result,) if len(returns) == 1 else result or ()
        for part, about in zip(parts, returns, strict=False):
            alias = about.alias_info
            if alias is None or alias.is_write:
                found = part if isinstance(part, (list, tuple)) else [part]
                self.total += sum(
                    x.numel() * x.element_size()
                    for x in found
                    if isinstance(x, torch.Tensor)
                )
        return result


def count_work(run: Callable[[], Any]) -> tuple[int, int]:
    """Count the operations of all products, and the bytes of all results."""
    with WrittenBytes() as written:
        flops = count_flops(run)
    return flops, written.total


def matmul_peak(
    device: torch.device, dtype: torch.dtype, size: int | None = None
) -> float:
    """Find the best rate of a large product, in operations a second.

    Args:
        device (torch.device): Where.
        dtype (torch.dtype): Of the matrices.
        size (int, optional): Side of the matrices. Default: None, several.
    """
    best = 0.0
    for side in (size,) if size else PEAK_SIZES[device.type]:
        left, right = (
            torch.randn(side, side, device=device).to(dtype) for _ in range(2)
        )
        out = torch.empty_like(left)
        for _ in range(10):
            took = seconds(lambda: torch.mm(left, right, out=out), device)  # noqa: B023
            best = max(best, 2 * side**3 / took)
    return best


def rate(
    work: tuple[int, int], pairs: int, took: float, peak: float
) -> dict[str, float]:
    """Bring a time and a count to rates.

    Args:
        work (tuple[int, int]): Operations and bytes of the run, of
            :func:`count_work`.
        pairs (int): Pairs of the run.
        took (float): Seconds of the run.
        peak (float): Operations a second of a large product.
    """
    flops, written = work
    return dict(
        seconds=took,
        pairs=pairs,
        pairs_per_second=pairs / took,
        gflop=flops / GIGA,
        mflop_per_pair=flops / pairs / 1e6,
        written_bytes_per_pair=written / pairs,
        gflop_per_second=flops / took / GIGA,
        peak_fraction=flops / took / peak,
        seconds_at_peak=flops / peak,
    )
