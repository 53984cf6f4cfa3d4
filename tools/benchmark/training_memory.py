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
from harness import (
    MIB,
    cuda_peak,
    fork_server,
    make_parser,
    print_table,
    quotient,
    reset_peak,
    set_up,
    start,
    status,
)
from training_objective import TrainingStep, add_objective_options

#: Pairs of the warm-up step.
WARM_UP = 2


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
    device = set_up(args)
    step = TrainingStep(args, args.frames, brute_force)
    step(*step.batch(WARM_UP))
    text, frames = step.batch(batch)
    gc.collect()
    # without the reset an earlier peak may hide that of the step
    exact = device.type == 'cuda' or reset_peak()
    before = status('VmRSS')
    extra = cuda_peak(lambda: step(text, frames), device)
    if extra is None:
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
    bench = start(args)
    cases: list[dict] = []
    for batch in args.batches:
        found = {'ours': in_own_process(args, batch, False)}
        if batch <= args.reference_up_to:
            found['reference'] = in_own_process(args, batch, True)
        ours = found['ours'] or {}
        reference = found.get('reference') or {}
        extra = {
            'ours': ours.get('bytes'),
            'reference': reference.get('bytes'),
        }
        earlier = cases[-1] if cases else {}
        cases.append(
            dict(
                batch=batch,
                **extra,
                kept_per_pair={
                    'ours': quotient(ours.get('kept'), batch**2),
                    'reference': quotient(reference.get('kept'), batch**2),
                },
                exact=all(part['exact'] for part in found.values() if part),
                ratio=quotient(extra['reference'], extra['ours']),
                batch_growth=quotient(batch, earlier.get('batch')),
                growth=quotient(extra['ours'], earlier.get('ours')),
            )
        )
        print(f'batch {batch} measured', flush=True)
        bench.write(cases=cases)
    print_table(
        f'Peak extra memory of a training step, D={args.dim}, '
        f'F={args.frames}, S={args.candidates}, {args.energy}, {args.dtype}',
        [
            {
                'batch': case['batch'],
                'ours MiB': quotient(case['ours'], MIB),
                'reference MiB': quotient(case['reference'], MIB),
                'ratio': case['ratio'],
                'batch grew by': case['batch_growth'],
                'ours grew by': case['growth'],
                **{
                    f'{name} kept KiB a pair': quotient(kept, 1024)
                    for name, kept in case['kept_per_pair'].items()
                },
            }
            for case in cases
        ],
    )
    if not all(case['exact'] for case in cases):
        print(
            '\nThe peak could not be set back before the step '
            '(/proc/self/clear_refs), so small figures may be too small.'
        )


if __name__ == '__main__':
    main()
