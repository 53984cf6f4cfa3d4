"""A training step of the head: forward, losses with energies, backward.

    python tools/benchmark/training.py step --json training_step.json
    python tools/benchmark/training.py memory --json training_memory.json
    python tools/benchmark/training.py scaling --json scaling.json

Compares the head with the brute-force objective in the same run. Encoders and
optimizer are left out; training_iteration.py has them.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import harness
import torch
import torch.distributed as dist
from harness import MIB, quotient
from rates import count_flops, count_work, measure_peaks, rate
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tools.benchmark.reference.brute_force_training import BruteForceObjective


def make_parser(
    description: str | None, *groups: str, **options: Any
) -> argparse.ArgumentParser:
    """Make a parser of a mode, with the options that say what is trained."""
    parser = harness.make_parser(description, 'head', *groups)
    harness.add_options(
        parser,
        energy=(
            'MLPEnergy',
            'energy-aware matching',
            ('MLPEnergy', 'BilinearEnergy', 'none'),
        ),
        energy_support_weight=(1.0, 'of the energies of support texts'),
        memory_budget=(int, 'bytes of chunks that are kept'),
        **options,
    )
    return parser


def title(name: str, args: argparse.Namespace) -> str:
    """Name a table with what was trained."""
    return f'{name}, D={args.dim}, S={args.candidates}, {args.energy}'


class Objective(nn.Module):
    """The losses of the head in training, or the brute-force objective's."""

    def __init__(
        self, args: argparse.Namespace, frames: int, brute_force: bool = False
    ) -> None:
        super().__init__()
        options: dict[str, Any] = dict(
            loss_match=dict(type='PairwiseSigmoidLoss')
        )
        if args.energy != 'none':
            options.update(
                loss_energy=dict(
                    type='EnergyMatchingLoss', energy=dict(type=args.energy)
                ),
                energy_support_weight=args.energy_support_weight,
            )
        if args.memory_budget:
            options['memory_budget'] = args.memory_budget
        self.head: Any = harness.build_head(args, frames, **options).train()
        if brute_force:
            self.head = BruteForceObjective(self.head)

    def forward(self, text: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Compute the losses."""
        if isinstance(self.head, BruteForceObjective):
            losses = self.head(text, frames)
        else:
            mask = torch.ones(
                frames.shape[:2], dtype=torch.bool, device=frames.device
            )
            losses = self.head.loss(
                TextFeatures(text), VideoFeatures(frames, mask)
            )
        return {k: v.float() for k, v in losses.items() if 'loss' in k}


class TrainingStep:
    """Forward, losses and backward of a batch, features' gradient included."""

    def __init__(
        self,
        args: argparse.Namespace,
        batch: int,
        frames: int,
        brute_force: bool,
    ) -> None:
        self.args = args
        self.module = Objective(args, frames, brute_force)
        self.draw(batch, frames)

    def draw(self, batch: int, frames: int) -> None:
        """Draw features that take a gradient."""
        text, video = harness.random_features(self.args, batch, batch, frames)
        self.sides = (
            text.embeds.requires_grad_(),
            video.frames.requires_grad_(),
        )

    def __call__(self) -> dict[str, float]:
        """Run the step; gradients of the last one are cleared first."""
        self.module.zero_grad(set_to_none=False)
        for side in self.sides:
            side.grad = None
        with harness.precision(self.args):
            losses = self.module(*self.sides)
        torch.stack([*losses.values()]).sum().backward()
        return {name: value.item() for name, value in losses.items()}

    def kept_bytes(self) -> int:
        """Count what autograd keeps between forward and backward.

        Parameters and inputs, which are there anyway, are left out, and so
        is what the backward pass computes again.
        """
        there = {
            x.untyped_storage().data_ptr()
            for x in (*self.sides, *self.module.parameters())
        }
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in there:
                kept[storage.data_ptr()] = storage.nbytes()
            return x

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        with harness.precision(self.args), hooks:
            losses = self.module(*self.sides)
        # alive until here, so no two of them had the same place in memory
        del losses
        return sum(kept.values())


# Time -----------------------------------------------------------------------


def step() -> None:
    """Time and operations of a step, on a GPU peak memory as well.

    Without --batch and --frames it measures 32 pairs at 12 frames and 8 pairs
    at 64 frames, the size of DiDeMo.
    """
    parser = make_parser(
        step.__doc__,
        'device',
        'dtype',
        batch=([int], 'pairs B of the batch; several'),
        peak_size=(int, 'side of the products of the peak'),
        reference_up_to=(int, 'largest batch of the reference'),
        count_up_to=(int, 'largest batch whose operations are counted'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    cases = [(32, 12), (8, 64)]
    if args.batch or args.frames:
        cases = [(x, args.frames or 12) for x in args.batch or [32]]
    measure = partial(measure_step, bench.notes)
    bench.measure(cases, measure, 'batch {0[0]} at {0[1]} frames')
    bench.print_table(title('Training step of the head', args))


def measure_step(
    notes: list[str], sizes: tuple[int, int], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure a batch; the reference is left out where it does not fit."""
    batch, frames = sizes
    device, peaks = torch.device(args.device), measure_peaks(args)
    ways: dict[str, Callable[[], dict[str, float]]] = {}
    peak: dict[str, int | None] = {}

    def add(name: str) -> None:
        way = TrainingStep(args, batch, frames, name == 'reference')
        way()  # the first step of all: the replay buffer is empty
        peak[name] = harness.cuda_peak(way, device)
        ways[name] = way

    add('ours')
    if batch <= (args.reference_up_to or batch):
        what = f'the reference at batch {batch} in {args.dtype}'
        harness.unless_out_of_memory(what, lambda: add('reference'), notes)
    times = harness.interleaved_medians(ways, args.repeats, device)
    found: dict[str, dict[str, float]] = {name: {} for name in ways}
    if batch <= (args.count_up_to or batch):
        for name, way in ways.items():
            found[name] = rate(count_work(way), batch**2, times[name], peaks)
    losses = {name: way() for name, way in ways.items()}
    ours, reference = found['ours'], found.get('reference', {})
    row = {
        'batch': batch,
        'frames': frames,
        'type': args.dtype,
        'ours s': times['ours'],
        'reference s': times.get('reference'),
        'ratio': quotient(times.get('reference'), times['ours']),
        'GFLOP': ours.get('gflop'),
        'reference GFLOP': reference.get('gflop'),
        'FLOP ratio': quotient(reference.get('gflop'), ours.get('gflop')),
        'GFLOP/s': ours.get('gflop_per_second'),
        'of peak': ours.get('peak_fraction'),
        'reference of peak': reference.get('peak_fraction'),
        'MB written a pair': quotient(ours.get('written_bytes_per_pair'), 1e6),
        'reference MB': quotient(reference.get('written_bytes_per_pair'), 1e6),
        'peak MiB': quotient(peak['ours'], MIB),
        'reference peak MiB': quotient(peak.get('reference'), MIB),
        'losses finite': all(
            math.isfinite(value)
            for terms in losses.values()
            for value in terms.values()
        ),
        'losses': losses,
    }
    return [row]


# Memory ---------------------------------------------------------------------


def memory() -> None:
    """Peak memory that a step takes beside its inputs, at growing batches.

    Each runs in a process of its own: a warm-up step at batch 2, then one
    step. On a CPU the figure is the rise of the resident set to its peak; on a
    GPU that of torch's peak of allocated memory. It also counts what autograd
    keeps between forward and backward.
    """
    parser = make_parser(
        memory.__doc__,
        'device',
        'dtype',
        batches=([8, 16, 32, 64, 128, 256], 'batches B, ascending'),
        reference_up_to=(32, 'largest batch of the reference'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)

    def measure(batch: int, options: argparse.Namespace) -> list[dict]:
        found = {'ours': in_own_process(options, batch, False)}
        if batch <= args.reference_up_to:
            found['reference'] = in_own_process(options, batch, True)
        extra = {name: part.get('MiB') for name, part in found.items()}
        rows = [x for x in bench.rows if x['type'] == options.dtype]
        earlier = rows[-1] if rows else {}
        row = {
            'batch': batch,
            'type': options.dtype,
            'ours MiB': extra['ours'],
            'reference MiB': extra.get('reference'),
            'ratio': quotient(extra.get('reference'), extra['ours']),
            'batch grew by': quotient(batch, earlier.get('batch')),
            'ours grew by': quotient(extra['ours'], earlier.get('ours MiB')),
            **{
                f'{name} kept KiB a pair': found.get(name, {}).get('kept')
                for name in ('ours', 'reference')
            },
            'exact': all(part.get('exact', True) for part in found.values()),
        }
        print(f'batch {batch} measured', flush=True)
        return [row]

    bench.measure(args.batches, measure, 'batch {}')
    bench.print_table(title('Peak extra memory of a training step', args))
    if not all(row['exact'] for row in bench.rows):
        print(
            '\nThe peak could not be set back before the step '
            '(/proc/self/clear_refs), so small figures may be too small.'
        )


def in_own_process(
    args: argparse.Namespace, batch: int, brute_force: bool
) -> dict[str, Any]:
    """Measure in a fresh process; empty if it ran out of memory."""
    context: Any = multiprocessing.get_context('forkserver')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(
                measure_memory, args, batch, brute_force
            ).result()
        except (
            BrokenProcessPool,
            MemoryError,
            torch.cuda.OutOfMemoryError,
        ) as err:
            print(f'batch {batch}: {type(err).__name__}, no figure')
            return {}


def measure_memory(
    args: argparse.Namespace, batch: int, brute_force: bool
) -> dict[str, Any]:
    """Measure one batch."""
    device, frames = harness.set_up(args), args.frames or 12
    way = TrainingStep(args, 2, frames, brute_force)
    way()
    way.draw(batch, frames)
    extra, exact = harness.extra_memory(way, device)
    kept = way.kept_bytes() / batch**2 / 1024
    return dict(MiB=extra / MIB, exact=exact, kept=kept)


# Several processes ----------------------------------------------------------


def scaling() -> None:
    """A step over several gloo processes.

    Every process has one thread and its share of the rows of one joint batch.
    Tells the operations of a process against 1/W of those of one process, time
    a step, and how far gradients are from those of one process. Where there
    are fewer cores than processes, times say little.
    """
    parser = make_parser(
        scaling.__doc__,
        batch=(32, 'pairs B of the joint batch'),
        processes=([1, 2, 4], 'numbers W; each must divide the batch'),
    )
    args = parser.parse_args()
    args.dtype, args.threads = 'float32', args.threads or 1
    uneven = [world for world in args.processes if args.batch % world]
    if uneven:
        parser.error(f'--batch {args.batch} cannot be dealt to {uneven}.')
    bench = harness.Bench(args)
    alone: dict[str, Any] = {}
    for world in sorted({1, *args.processes}):
        with tempfile.TemporaryDirectory() as folder:
            start_processes(
                worker,
                (world, args, folder),
                nprocs=world,
                start_method='forkserver',
            )
            ranks = [
                torch.load(Path(folder) / f'{rank}.pt')
                for rank in range(world)
            ]
        alone = alone or ranks[0]
        most = max(rank['flops'] for rank in ranks)
        took = max(rank['seconds'] for rank in ranks)
        row = {
            'processes': world,
            'GFLOP of a process': most / 1e9,
            'least GFLOP': min(rank['flops'] for rank in ranks) / 1e9,
            'share': most / alone['flops'],
            'share x W': most / alone['flops'] * world,
            's a step': took,
            'speed-up': alone['seconds'] / took,
            'gradient difference': max(
                gradient_difference(rank['gradients'], alone['gradients'])
                for rank in ranks
            ),
        }
        bench.add(row)
    bench.print_table(title(f'Joint batch {args.batch}', args))


def worker(
    rank: int, world: int, args: argparse.Namespace, folder: str
) -> None:
    """Join the processes, and write what this one measures."""
    os.environ['OMP_NUM_THREADS'] = str(args.threads)
    harness.set_up(args)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/init',
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=30),
    )
    # the model is gone before the group, or DDP's destructor can deadlock
    torch.save(measure_share(rank, world, args), f'{folder}/{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def measure_share(rank: int, world: int, args: argparse.Namespace) -> dict:
    """Run steps as one process; gradients are those of the first."""
    way = TrainingStep(args, args.batch, args.frames or 12, False)
    parameters = dict(way.module.named_parameters())
    if world > 1:
        way.module = DistributedDataParallel(way.module)
    # as samplers deal items out
    way.sides = tuple(
        side.detach()[rank::world].clone().requires_grad_()
        for side in way.sides
    )
    way()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in parameters.items()
        if parameter.grad is not None
    }
    flops = count_flops(way)
    times = []
    for _ in range(max(1, args.repeats)):
        dist.barrier()
        times.append(harness.seconds(way))
    return dict(
        flops=flops, seconds=statistics.median(times), gradients=gradients
    )


def gradient_difference(
    got: dict[str, Tensor], expected: dict[str, Tensor]
) -> float:
    """Largest difference, over the largest gradient of its parameter.

    Parameters whose gradient is rounding alone are compared with the largest
    gradient of all.
    """
    largest = max(float(x.abs().max()) for x in expected.values())
    worst = 0.0
    for name, gradient in expected.items():
        size = float(gradient.abs().max())
        scale = size if size > 1e-5 * largest else largest
        difference = float((got[name] - gradient).abs().max())
        worst = max(worst, difference / scale)
    return worst


if __name__ == '__main__':
    # imported once, in the process that all others are forked from
    multiprocessing.set_forkserver_preload(['torch', 'eaglenet_mm.models'])
    harness.run_mode({x.__name__: x for x in (step, memory, scaling)})
