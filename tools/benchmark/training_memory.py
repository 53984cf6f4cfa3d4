"""Peak memory that a training step of the head takes beside its inputs.

    python tools/benchmark/training_memory.py --json training_memory.json

Runs the head and the brute-force objective at growing batches, each in a
process of its own: a warm-up step at batch 2, then one step. On a CPU the
figure is the rise of the peak resident set above the resident set before the
step; on a GPU that of torch's peak of allocated memory. It also counts what
autograd keeps between forward and backward. Run it from a checkout. The
reference stops at --reference-up-to pairs, since its memory
grows with the square of the batch.
"""

from __future__ import annotations

import argparse
import gc
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from common import fork_server, make_parser, start
from reporting import (
    describe_machine,
    print_machine,
    print_table,
    write_report,
)
from resident_memory import reset_peak, status
from training_objective import TrainingStep, add_objective_options

#: Pairs of the warm-up step.
WARM_UP = 2
MIB = 2**20


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, frames=12)
    add = parser.add_argument
    add(
        '--batches',
        type=int,
        nargs='+',
        default=[8, 16, 32, 64, 128, 256],
        help='batches B to measure, ascending',
    )
    add(
        '--reference-up-to',
        type=int,
        default=32,
        help='largest batch of the reference',
    )
    add_objective_options(parser)
    return parser.parse_args()


def measure(
    args: argparse.Namespace, batch: int, brute_force: bool
) -> dict[str, Any]:
    """Measure one batch; runs in a process of its own."""
    device = start(args)
    step = TrainingStep(args, args.frames, brute_force)
    step(*step.batch(WARM_UP))
    text, frames = step.batch(batch)
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(text, frames)
        extra, exact = torch.cuda.max_memory_allocated(device) - before, True
    else:
        # without the reset an earlier peak may hide that of the step
        exact = reset_peak()
        before = status('VmRSS')
        step(text, frames)
        extra = status('VmHWM') - before
    kept = step.kept_bytes(text, frames)
    return dict(bytes=extra, exact=exact, kept=kept)


def in_own_process(
    args: argparse.Namespace, batch: int, brute_force: bool
) -> dict[str, Any] | None:
    """Measure in a fresh process; None if it was killed, or out of memory."""
    with ProcessPoolExecutor(1, mp_context=fork_server()) as pool:
        try:
            return pool.submit(measure, args, batch, brute_force).result()
        except (
            BrokenProcessPool,
            MemoryError,
            torch.cuda.OutOfMemoryError,
        ) as err:
            print(f'batch {batch}: {type(err).__name__}, no figure')
            return None


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    machine = describe_machine(start(args))
    print_machine(machine)
    cases: list[dict] = []
    for batch in args.batches:
        found = {'ours': in_own_process(args, batch, False)}
        found['reference'] = (
            in_own_process(args, batch, True)
            if batch <= args.reference_up_to
            else None
        )
        extra = {
            k: None if v is None else v['bytes'] for k, v in found.items()
        }
        ours, reference = extra['ours'], extra['reference']
        earlier = cases[-1] if cases else None
        before = earlier and earlier['ours']
        growth = ours / before if ours and before else None
        cases.append(
            dict(
                batch=batch,
                **extra,
                kept_per_pair={
                    k: None if v is None else v['kept'] / batch**2
                    for k, v in found.items()
                },
                exact=all(v['exact'] for v in found.values() if v),
                ratio=reference / ours if ours and reference else None,
                batch_growth=batch / earlier['batch'] if earlier else None,
                growth=growth,
            )
        )
        print(f'batch {batch} measured', flush=True)
        write_report(args, machine, cases=cases)
    print_table(
        f'Peak extra memory of a training step, D={args.dim}, '
        f'F={args.frames}, S={args.candidates}, {args.energy}, {args.dtype}',
        [
            {
                'batch': case['batch'],
                'ours MiB': _mib(case['ours']),
                'reference MiB': _mib(case['reference']),
                'ratio': case['ratio'],
                'batch grew by': case['batch_growth'],
                'ours grew by': case['growth'],
                'kept KiB a pair': _kib(case['kept_per_pair']['ours']),
                'reference': _kib(case['kept_per_pair']['reference']),
            }
            for case in cases
        ],
    )
    if not all(case['exact'] for case in cases):
        print(
            '\nThe peak could not be set back before the step '
            '(/proc/self/clear_refs), so small figures may be too small.'
        )


def _kib(count: float | None) -> float | None:
    return None if count is None else count / 1024


def _mib(count: int | None) -> float | None:
    return None if count is None else count / MIB


if __name__ == '__main__':
    main()
