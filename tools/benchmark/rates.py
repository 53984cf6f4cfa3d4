"""Counts of operations and bytes, and the best rates of the machine."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from harness import DTYPES, interleaved_medians, precision, seconds
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

#: Sides of the square products whose best rate is the machine's peak.
PEAK_SIZES = {'cpu': (1024, 2048), 'cuda': (4096, 8192)}
#: Bytes of the copy whose rate is that of memory; larger than every cache.
COPY_BYTES = {'cpu': 2**28, 'cuda': 2**30}


class Peaks(NamedTuple):
    """Best rates of the machine, in operations and bytes a second."""

    flops: float
    bandwidth: float


class Work(NamedTuple):
    """Operations of a run, and bytes that it writes and reads."""

    flops: int
    written: int
    read: int


def _added_product(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    """Operations of ``addmv``, ``addmm`` and ``baddbmm``, by shapes."""
    batch = left[0] if len(left) == 3 else 1
    columns = right[-1] if len(right) > 1 else 1
    return 2 * batch * left[-2] * left[-1] * columns


def count_flops(run: Callable[[], Any]) -> int:
    """Count the operations of all products of a run.

    Includes in-place and matrix-vector products, which torch's own table
    leaves out. Elementwise operations are not counted.
    """
    aten = torch.ops.aten
    missing: dict[Any, Any] = dict.fromkeys(
        (aten.addmv, aten.addmm_, aten.baddbmm_), _added_product
    )
    missing[aten.mv] = lambda matrix, *_, **__: 2 * matrix[0] * matrix[1]
    with FlopCounterMode(display=False, custom_mapping=missing) as counter:
        run()
    return counter.get_total_flops()


class MovedBytes(TorchDispatchMode):
    """Adds up the sizes of what every operation reads and writes.

    Views move nothing. This is the traffic of a machine without caches.
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
        if not func.is_view and name not in self.SILENT:
            sources = args[1:] if name in self.OVERWRITING else args
            options = {k: v for k, v in kwargs.items() if k != 'out'}
            self.written += _bytes_of(result)
            self.read += _bytes_of([sources, options])
        return result


def _bytes_of(values: Any) -> int:
    """Bytes of the tensors in nested lists; an expanded one counts once."""
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


@functools.cache
def _peaks(device: str, dtype: str, size: int | None) -> Peaks:
    kind = torch.device(device).type
    best = 0.0
    for side in (size,) if size else PEAK_SIZES[kind]:
        left, right, out = (
            torch.randn(side, side, device=device).to(DTYPES[dtype])
            for _ in range(3)
        )
        for _ in range(10):
            took = seconds(lambda: torch.mm(left, right, out=out), device)  # noqa: B023
            best = max(best, 2 * side**3 / took)
    source = torch.ones(size or COPY_BYTES[kind] // 4, device=device)
    target = torch.empty_like(source)
    took = min(seconds(lambda: target.copy_(source), device) for _ in range(9))
    peaks = Peaks(best, 2 * source.nbytes / took)
    print(
        f'peak of torch.mm in {dtype}: {peaks.flops / 1e9:.1f} GFLOP/s; '
        f'a copy moves {peaks.bandwidth / 1e9:.1f} GB/s'
    )
    return peaks


def compare(
    runs: Mapping[str, Callable[[], Any]],
    pairs: Mapping[str, int],
    args: argparse.Namespace,
    counted: Collection[str],
) -> list[dict[str, Any]]:
    """Time runs over pairs in turn, the first one ours; a row for each.

    Counts the work of those in ``counted`` and sets it against the machine's
    peaks, which are measured once in each precision.
    """
    with precision(args):
        peaks = _peaks(args.device, args.dtype, args.peak_size)
    works = {name: count_work(runs[name]) for name in counted}  # warm-up
    times = interleaved_medians(runs, args.repeats, args.device)
    rows: list[dict[str, Any]] = []
    for name, took in times.items():
        row = {'head': name, 's': took, 'pairs/s': pairs[name] / took}
        ours = rows[0] if rows else row
        row['to ours'] = ours['pairs/s'] / row['pairs/s']
        if work := works.get(name):
            row['MFLOP/pair'] = work.flops / pairs[name] / 1e6
            row['FLOP to ours'] = row['MFLOP/pair'] / ours['MFLOP/pair']
            row['GFLOP/s'] = work.flops / took / 1e9
            row['of peak'] = work.flops / took / peaks.flops
            row['s at that peak'] = work.flops / peaks.flops
            moved = work.written + work.read
            row['s to move its bytes'] = moved / peaks.bandwidth
            row['B written a pair'] = work.written / pairs[name]
        rows.append(row)
    return rows
