"""A training step of the head: forward, losses with energies, backward.

    python tools/benchmark/training_step.py --json training_step.json

Compares the head with the brute-force objective in the same run, step by
step in turn: time, operations and share of the machine's matrix-product peak.
Encoders and optimizer are left out. Run it from a checkout. Without --batch
and --frames it measures 32 pairs at 12 frames and 8 pairs at 64 frames, the
size of DiDeMo.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from common import DTYPES, interleaved_medians, make_parser, start
from rates import count_work, matmul_peak, rate
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
    parser = make_parser(__doc__)
    parser.add_argument('--batch', type=int, help='pairs B of the batch')
    parser.add_argument(
        '--peak-size', type=int, help='side of the products of the peak'
    )
    add_objective_options(parser)
    return parser.parse_args()


def measure(
    batch: int, frames: int, args: argparse.Namespace, peak: float
) -> dict[str, Any]:
    """Measure one size."""
    steps = {
        name: TrainingStep(args, frames, brute_force=name == 'reference')
        for name in ('ours', 'reference')
    }
    sides = {name: step.batch(batch) for name, step in steps.items()}
    losses: dict[str, dict[str, float]] = {}

    def run(name: str) -> None:
        losses[name] = steps[name](*sides[name])

    for name in steps:
        run(name)  # the first step of all: the replay buffer is empty
    work = {name: count_work(lambda: run(name)) for name in steps}  # noqa: B023
    times = interleaved_medians(
        {
            'ours': (lambda: run('ours'), 2),
            'reference': (lambda: run('reference'), 1),
        },
        args.repeats,
        next(steps['ours'].module.parameters()).device,
    )
    rates = {
        name: rate(work[name], batch * batch, times[name], peak)
        for name in steps
    }
    return dict(
        batch=batch,
        frames=frames,
        **rates,
        ratio=times['reference'] / times['ours'],
        flop_ratio=work['reference'][0] / work['ours'][0],
        losses=losses,
        losses_finite=all(
            math.isfinite(value)
            for terms in losses.values()
            for value in terms.values()
        ),
    )


def table_row(result: dict) -> dict[str, Any]:
    """Pick what the table shows."""
    ours, reference = result['ours'], result['reference']
    return {
        'batch': result['batch'],
        'frames': result['frames'],
        'ours s': ours['seconds'],
        'reference s': reference['seconds'],
        'ratio': result['ratio'],
        'GFLOP': ours['gflop'],
        'reference GFLOP': reference['gflop'],
        'FLOP ratio': result['flop_ratio'],
        'GFLOP/s': ours['gflop_per_second'],
        'of peak': ours['peak_fraction'],
        'reference of peak': reference['peak_fraction'],
        'MB written a pair': ours['written_bytes_per_pair'] / 1e6,
        'reference MB': reference['written_bytes_per_pair'] / 1e6,
        'losses finite': result['losses_finite'],
    }


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    device = start(args)
    machine = describe_machine(device)
    print_machine(machine)
    peak = matmul_peak(device, DTYPES[args.dtype], args.peak_size)
    print(f'peak of torch.mm in {args.dtype}: {peak / 1e9:.1f} GFLOP/s')
    cases: tuple[tuple[int, int], ...] = DEFAULT_CASES
    if args.batch or args.frames:
        cases = ((args.batch or 32, args.frames or 12),)
    results: list[dict] = []
    for batch, frames in cases:
        results.append(measure(batch, frames, args, peak))
        write_report(
            args, machine, peak_gflop_per_second=peak / 1e9, cases=results
        )
    print_table(
        f'Training step of the head, D={args.dim}, S={args.candidates}, '
        f'{args.energy}, {args.dtype}',
        [table_row(result) for result in results],
    )


if __name__ == '__main__':
    main()
