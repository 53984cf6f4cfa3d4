"""Counting operations, and setting them against what the machine can do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from harness import DTYPES, precision, seconds
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

#: Sides of the square products whose best rate is the machine's peak.
PEAK_SIZES = {'cpu': (1024, 2048), 'cuda': (4096, 8192)}
#: Bytes of the copy whose rate is the memory's; beyond every cache.
COPY_BYTES = {'cpu': 2**28, 'cuda': 2**30}
GIGA = 1e9


class Peaks(NamedTuple):
    """What the machine can do at best."""

    flops: float
    bandwidth: float


class Work(NamedTuple):
    """What a run asks of the machine."""

    flops: int
    written: int
    read: int


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


class MovedBytes(TorchDispatchMode):
    """Adds up the sizes of what every operation reads and writes.

    Views move nothing. What a kernel keeps in a cache between two operations
    is counted as well, so this is the traffic of a machine without one.
    """

    #: Hand out memory, or the same memory, without writing.
    SILENT = ('empty', 'new_empty', 'empty_like', '_unsafe_view', 'detach')
    #: Write their first argument without reading it.
    OVERWRITING = ('copy_', 'fill_', 'zero_')

    def __init__(self) -> None:
        super().__init__()
        self.written = self.read = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it moves."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in self.SILENT:
            return result
        returns = func._schema.returns
        parts = (result,) if len(returns) == 1 else result or ()
        written = [
            part
            for part, about in zip(parts, returns, strict=False)
            if about.alias_info is None or about.alias_info.is_write
        ]
        if written:
            sources = args[1:] if name in self.OVERWRITING else args
            options = {k: v for k, v in kwargs.items() if k != 'out'}
            self.written += _bytes_of(written)
            self.read += _bytes_of([sources, options])
        return result


def _bytes_of(values: Any) -> int:
    """Add up the bytes of the tensors in nested lists, repeats once."""
    return sum(
        min(x.numel() * x.element_size(), x.untyped_storage().nbytes())
        for x in tree_leaves(values)
        if isinstance(x, torch.Tensor)
    )


def count_work(run: Callable[[], Any]) -> Work:
    """Count operations and bytes of a run."""
    with MovedBytes() as moved:
        flops = count_flops(run)
    return Work(flops, moved.written, moved.read)


_PEAKS: dict[str, Peaks] = {}


def measure_peaks(args: argparse.Namespace) -> Peaks:
    """Find the best rates of the device, once in each precision."""
    if args.dtype not in _PEAKS:
        device = torch.device(args.device)
        with precision(args):
            peaks = Peaks(
                matmul_peak(device, DTYPES[args.dtype], args.peak_size),
                copy_peak(device, args.peak_size),
            )
        _PEAKS[args.dtype] = peaks
        print(
            f'peak of torch.mm in {args.dtype}: {peaks.flops / GIGA:.1f} '
            f'GFLOP/s; a copy moves {peaks.bandwidth / GIGA:.1f} GB/s'
        )
    return _PEAKS[args.dtype]


def copy_peak(device: torch.device, size: int | None = None) -> float:
    """Find the rate of a large copy, in bytes read and written a second."""
    source = torch.ones(size or COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    best = min(seconds(lambda: target.copy_(source), device) for _ in range(9))
    return 2 * source.nbytes / best


def matmul_peak(
    device: torch.device, dtype: torch.dtype, size: int | None = None
) -> float:
    """Find the best rate of a large product, in operations a second."""
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
    work: Work, pairs: int, took: float, peaks: Peaks
) -> dict[str, float]:
    """Bring a time and a count to rates."""
    moved = work.written + work.read
    return dict(
        seconds=took,
        pairs=pairs,
        pairs_per_second=pairs / took,
        gflop=work.flops / GIGA,
        mflop_per_pair=work.flops / pairs / 1e6,
        written_bytes_per_pair=work.written / pairs,
        moved_bytes_per_pair=moved / pairs,
        gflop_per_second=work.flops / took / GIGA,
        peak_fraction=work.flops / took / peaks.flops,
        seconds_at_peak=work.flops / peaks.flops,
        gbyte_per_second=moved / took / GIGA,
        seconds_at_bandwidth=moved / peaks.bandwidth,
    )
