"""A training step of the head: forward, losses with energies, backward.

    python tools/benchmark/training_step.py --json training_step.json

Compares the head with the brute-force objective in the same run, step by
step in turn: time, operations and share of the machine's matrix-product peak;
on a GPU peak memory as well. Encoders and optimizer are left out. Run it from
a checkout. Without --batch and --frames it measures 32 pairs at 12 frames and
8 pairs at 64 frames, the size of DiDeMo.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import (
    MIB,
    cuda_peak,
    interleaved_medians,
    make_parser,
    measure_cases,
    print_table,
    quotient,
    start,
    unless_out_of_memory,
)
from rates import count_work, measure_peaks, rate
from training_objective import TrainingStep, add_objective_options

#: Batch and frames.
DEFAULT_CASES = ((32, 12), (8, 64))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, several_dtypes=True)
    add = parser.add_argument
    add('--batch', type=int, nargs='+', help='pairs B of the batch; several')
    add('--peak-size', type=int, help='side of the products of the peak')
    add(
        '--reference-up-to',
        type=int,
        help='largest batch of the reference; default: all',
    )
    add(
        '--count-up-to',
        type=int,
        help='largest batch whose operations are counted; default: all',
    )
    add_objective_options(parser)
    return parser.parse_args()


def measure(sizes: tuple[int, int], args: argparse.Namespace) -> dict:
    """Measure a batch; the reference is left out where it does not fit."""
    batch, frames = sizes
    device, peaks = torch.device(args.device), measure_peaks(args)
    ways: dict[str, Callable[[], dict[str, float]]] = {}
    peak: dict[str, int | None] = {}
    unfit: list[str] = []

    def add(name: str) -> None:
        step = TrainingStep(args, frames, brute_force=name == 'reference')
        way = partial(step, *step.batch(batch))
        way()  # the first step of all: the replay buffer is empty
        peak[name] = cuda_peak(way, device)
        ways[name] = way

    add('ours')
    if batch <= (args.reference_up_to or batch):
        what = f'the reference at batch {batch} in {args.dtype}'
        unless_out_of_memory(what, lambda: add('reference'), unfit)
    times = interleaved_medians(ways, args.repeats, device, dict(ours=2))
    found: dict[str, Any] = {
        name: dict(seconds=times[name], peak_bytes=peak[name]) for name in ways
    }
    if batch <= (args.count_up_to or batch):
        for name, way in ways.items():
            work = count_work(way)
            found[name].update(rate(work, batch * batch, times[name], peaks))
    losses = {name: way() for name, way in ways.items()}
    ours, reference = found['ours'], found.get('reference', {})
    ratios = {
        name: quotient(reference.get(key), ours.get(key))
        for name, key in (
            ('ratio', 'seconds'),
            ('flop_ratio', 'gflop'),
            ('memory_ratio', 'peak_bytes'),
        )
    }
    return dict(
        batch=batch,
        frames=frames,
        dtype=args.dtype,
        peak_gflop_per_second=peaks.flops / 1e9,
        **found,
        reference_note=unfit,
        **ratios,
        losses=losses,
        losses_finite=all(
            math.isfinite(value)
            for terms in losses.values()
            for value in terms.values()
        ),
    )


def table_row(result: dict) -> dict[str, Any]:
    """Pick what the table shows; what was not measured is None."""
    ours, reference = result['ours'], result.get('reference', {})
    return {
        'batch': result['batch'],
        'frames': result['frames'],
        'type': result['dtype'],
        'ours s': ours['seconds'],
        'reference s': reference.get('seconds'),
        'ratio': result['ratio'],
        'GFLOP': ours.get('gflop'),
        'reference GFLOP': reference.get('gflop'),
        'FLOP ratio': result['flop_ratio'],
        'GFLOP/s': ours.get('gflop_per_second'),
        'of peak': ours.get('peak_fraction'),
        'reference of peak': reference.get('peak_fraction'),
        'MB written a pair': quotient(ours.get('written_bytes_per_pair'), 1e6),
        'reference MB': quotient(reference.get('written_bytes_per_pair'), 1e6),
        'peak MiB': quotient(ours.get('peak_bytes'), MIB),
        'reference peak MiB': quotient(reference.get('peak_bytes'), MIB),
        'losses finite': result['losses_finite'],
    }


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    bench = start(args)
    cases: tuple[tuple[int, int], ...] = DEFAULT_CASES
    if args.batch or args.frames:
        cases = tuple((x, args.frames or 12) for x in args.batch or [32])
    results = measure_cases(
        bench, cases, measure, 'batch {0[0]} at {0[1]} frames'
    )
    if results:
        print_table(
            f'Training step of the head, D={args.dim}, S={args.candidates}, '
            f'{args.energy}',
            [table_row(result) for result in results],
        )


if __name__ == '__main__':
    main()
