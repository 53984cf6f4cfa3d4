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
from typing import Any

import torch
from common import (
    each_dtype,
    interleaved_medians,
    make_parser,
    start,
    unless_out_of_memory,
)
from rates import Peaks, count_work, measure_peaks, rate
from reporting import (
    describe_machine,
    print_machine,
    print_table,
    write_report,
)
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


class Way:
    """One way to take the step, on a batch of its own.

    Args:
        args (argparse.Namespace): Options.
        batch (int): Pairs ``B``.
        frames (int): Frames ``F``.
        brute_force (bool): Take the reference instead of the head.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        batch: int,
        frames: int,
        brute_force: bool,
    ) -> None:
        self.step = TrainingStep(args, frames, brute_force)
        self.sides = self.step.batch(batch)
        self.losses: dict[str, float] = {}

    def __call__(self) -> None:
        """Take the step."""
        self.losses = self.step(*self.sides)


def peak_bytes(run: Way, device: torch.device) -> int | None:
    """Memory of a step beside what was there before, on a GPU."""
    if device.type != 'cuda':
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def measure(
    batch: int, frames: int, args: argparse.Namespace, peaks: Peaks
) -> dict[str, Any]:
    """Measure one size in one precision.

    The reference is left out where it is not asked for or does not fit.
    """
    device = torch.device(args.device)
    ways = {'ours': Way(args, batch, frames, False)}
    ways['ours']()  # the first step of all: the replay buffer is empty
    peak = {'ours': peak_bytes(ways['ours'], device)}
    unfit: list[str] = []
    if batch <= (args.reference_up_to or batch):

        def add_reference() -> None:
            way = Way(args, batch, frames, True)
            way()
            peak['reference'] = peak_bytes(way, device)
            ways['reference'] = way

        unless_out_of_memory(
            f'the reference at batch {batch} in {args.dtype}',
            add_reference,
            unfit,
        )
    times = interleaved_medians(
        {name: (ways[name], 1 + (name == 'ours')) for name in ways},
        args.repeats,
        device,
    )
    found: dict[str, Any] = {
        name: dict(seconds=times[name], peak_bytes=peak[name]) for name in ways
    }
    if batch <= (args.count_up_to or batch):
        for name, way in ways.items():
            work = count_work(way)
            found[name].update(rate(work, batch * batch, times[name], peaks))
    losses = {name: way.losses for name, way in ways.items()}
    return dict(
        batch=batch,
        frames=frames,
        dtype=args.dtype,
        peak_gflop_per_second=peaks.flops / 1e9,
        **found,
        reference_note=unfit,
        ratio=quotient(found, 'seconds'),
        flop_ratio=quotient(found, 'gflop'),
        memory_ratio=quotient(found, 'peak_bytes'),
        losses=losses,
        losses_finite=all(
            math.isfinite(value)
            for terms in losses.values()
            for value in terms.values()
        ),
    )


def quotient(found: dict, key: str) -> float | None:
    """Divide a figure of the reference by ours, where both are known."""
    figures = [found.get(name, {}).get(key) for name in ('reference', 'ours')]
    return None if None in figures else figures[0] / figures[1]


def table_row(result: dict) -> dict[str, Any]:
    """Pick what the table shows; what was not measured is None."""
    ours, reference = result['ours'], result.get('reference', {})
    scaled = {'MB': 1e6, 'MiB': 2**20}

    def figure(values: dict, key: str, unit: str) -> float | None:
        value = values.get(key)
        return None if value is None else value / scaled[unit]

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
        'MB written a pair': figure(ours, 'written_bytes_per_pair', 'MB'),
        'reference MB': figure(reference, 'written_bytes_per_pair', 'MB'),
        'peak MiB': figure(ours, 'peak_bytes', 'MiB'),
        'reference peak MiB': figure(reference, 'peak_bytes', 'MiB'),
        'losses finite': result['losses_finite'],
    }


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    machine = describe_machine(start(args))
    print_machine(machine)
    cases: tuple[tuple[int, int], ...] = DEFAULT_CASES
    if args.batch or args.frames:
        cases = tuple((x, args.frames or 12) for x in args.batch or [32])
    results: list[dict] = []
    skipped: list[str] = []
    for options in each_dtype(args):
        peaks = measure_peaks(options)
        for batch, frames in cases:
            found = unless_out_of_memory(
                f'batch {batch} at {frames} frames in {options.dtype}',
                lambda: measure(batch, frames, options, peaks),  # noqa: B023
                skipped,
            )
            results += [found] if found else []
            write_report(args, machine, cases=results, skipped=skipped)
    if results:
        print_table(
            f'Training step of the head, D={args.dim}, S={args.candidates}, '
            f'{args.energy}',
            [table_row(result) for result in results],
        )


if __name__ == '__main__':
    main()
