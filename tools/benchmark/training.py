"""A training step of the head: forward, losses with energies, backward.

    python tools/benchmark/training.py step --json training_step.json
    python tools/benchmark/training.py memory --json training_memory.json
    python tools/benchmark/training.py scaling --json scaling.json

Compares the head with the brute-force objective in the same run. Encoders and
optimizer are left out; see training_iteration.py for those.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
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
from rates import compare, count_flops
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tools.benchmark.reference.brute_force_training import BruteForceObjective

#: Losses of the head: those of the recipes of MSVD and VATEX.
LOSSES = dict(
    loss_match=dict(type='PairwiseSigmoidLoss'),
    loss_energy=dict(type='EnergyMatchingLoss', energy=dict(type='MLPEnergy')),
    energy_support_weight=1.0,
)
#: Options of the modes of one process.
MODEL = 'head', 'device', 'dtype'
#: How a process ends that needs more memory than there is.
OUT_OF_MEMORY = BrokenProcessPool, MemoryError, torch.cuda.OutOfMemoryError


class Objective(nn.Module):
    """Losses of a head, or of the brute-force objective in its place."""

    def __init__(self, head: Any, brute_force: bool = False) -> None:
        super().__init__()
        self.head = BruteForceObjective(head) if brute_force else head

    def forward(
        self, text: Tensor, frames: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Compute the losses of texts and of the frames of their videos."""
        if isinstance(self.head, BruteForceObjective):
            losses = self.head(text.float(), frames.float())
        else:
            losses = self.head.loss(
                TextFeatures(text), VideoFeatures(frames, mask)
            )
        return {k: v.float() for k, v in losses.items() if 'loss' in k}


class TrainingStep:
    """Forward, losses and backward of a batch, down to its features."""

    def __init__(
        self, args: argparse.Namespace, batch: int, frames: int, by_force: bool
    ) -> None:
        self.args = args
        head = harness.build_head(args, frames, **LOSSES).train()
        self.module: nn.Module = Objective(head, by_force)
        self.draw(batch, frames)

    def draw(self, batch: int, frames: int) -> None:
        """Draw features that take a gradient."""
        text, video = harness.random_features(self.args, batch, batch, frames)
        self.features = text.embeds, video.frames, video.frame_mask
        for side in self.features[:2]:
            side.requires_grad_()

    def __call__(self) -> dict[str, float]:
        """Run the step; gradients of the last one are cleared first."""
        self.module.zero_grad(set_to_none=False)
        for side in self.features:
            side.grad = None
        with harness.precision(self.args):
            losses = self.module(*self.features)
        torch.stack([*losses.values()]).sum().backward()
        return {name: value.item() for name, value in losses.items()}

    def kept_bytes(self) -> int:
        """Bytes that autograd keeps between forward and backward.

        Not counted: parameters, inputs and what the backward pass recomputes.
        """
        there = {
            x.untyped_storage().data_ptr()
            for x in (*self.features, *self.module.parameters())
        }
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in there:
                kept[storage.data_ptr()] = storage.nbytes()
            return x

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        with harness.precision(self.args), hooks:
            losses = self.module(*self.features)
        # alive until here, so no two of them had the same place in memory
        del losses
        return sum(kept.values())


def title(name: str, args: argparse.Namespace) -> str:
    """Title of a table, with the sizes of the head."""
    return f'{name}, D={args.dim}, S={args.candidates}'


# Time -----------------------------------------------------------------------


def step() -> None:
    """Time and operations of a step, on a GPU peak memory as well.

    Without --batch and --frames it measures 32 pairs at 12 frames and 8 pairs
    at 64 frames, the size of DiDeMo.
    """
    bench = harness.start(
        step.__doc__,
        *MODEL,
        batch=([int], 'pairs B of the batch; several'),
        peak_size=(int, 'side of the products of the peak'),
        reference_up_to=(int, 'largest batch of the reference'),
        count_up_to=(int, 'largest batch whose operations are counted'),
    )
    args = bench.args
    cases = [(32, 12), (8, 64)]
    if args.batch or args.frames:
        cases = [(x, args.frames or 12) for x in args.batch or [32]]
    measure = partial(measure_step, bench.notes)
    bench.measure(cases, measure, 'batch {0[0]} at {0[1]} frames')
    bench.print_table(title('Training step of the head', args))


def measure_step(
    notes: list[str], sizes: tuple[int, int], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure a batch, without the reference where it does not fit."""
    batch, frames = sizes
    device = torch.device(args.device)

    def make(brute_force: bool) -> TrainingStep | None:
        if brute_force and batch > (args.reference_up_to or batch):
            return None
        way = TrainingStep(args, batch, frames, brute_force)
        way()  # the first step of all: the replay buffer is empty
        way.peak = quotient(harness.cuda_peak(way, device), MIB)
        return way

    ways = harness.both_ways(make, f'at batch {batch} in {args.dtype}', notes)
    counted = ways if batch <= (args.count_up_to or batch) else ()
    pairs = dict.fromkeys(ways, batch**2)
    rows = []
    for row in compare(ways, pairs, args, counted):
        way = ways[row['head']]
        losses = way()
        is_finite = all(map(math.isfinite, losses.values()))
        about = {'batch': batch, 'frames': frames, 'type': args.dtype, **row}
        measured = {'peak MiB': way.peak, 'losses finite': is_finite}
        rows.append({**about, **measured, 'losses': losses})
    return rows


# Memory ---------------------------------------------------------------------


def memory() -> None:
    """Peak memory that a step takes beside its inputs, at growing batches.

    Each runs in a process of its own: a warm-up step at batch 2, then one
    step. The figure is the rise of the resident set to its peak, on a GPU of
    torch's allocated memory. Beside it is what autograd keeps between forward
    and backward.
    """
    bench = harness.start(
        memory.__doc__,
        *MODEL,
        batches=([8, 16, 32, 64, 128, 256], 'batches B, ascending'),
        reference_up_to=(32, 'largest batch of the reference'),
    )
    args = bench.args

    def measure(batch: int, options: argparse.Namespace) -> list[dict]:
        rows: list[dict[str, Any]] = []
        with_reference = batch <= args.reference_up_to
        for name in ('ours', 'reference')[: 1 + with_reference]:
            found = in_own_process(options, batch, name == 'reference')
            row = {
                'batch': batch,
                'type': options.dtype,
                'head': name,
                'MiB': found.get('MiB'),
                'kept KiB a pair': found.get('kept'),
            }
            ours = rows[0] if rows else row
            row['to ours'] = quotient(row['MiB'], ours['MiB'])
            earlier = [
                x['MiB']
                for x in bench.rows
                if (x['type'], x['head']) == (options.dtype, name)
            ]
            row['grew by'] = quotient(
                row['MiB'], earlier[-1] if earlier else None
            )
            rows.append(row)
        print(f'batch {batch} measured', flush=True)
        return rows

    bench.measure(args.batches, measure, 'batch {}')
    bench.print_table(title('Peak extra memory of a training step', args))


def in_own_process(
    args: argparse.Namespace, batch: int, brute_force: bool
) -> dict[str, float]:
    """Measure in a fresh process; empty if it ran out of memory."""
    context: Any = multiprocessing.get_context('forkserver')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            task = pool.submit(measure_memory, args, batch, brute_force)
            return task.result()
        except OUT_OF_MEMORY as err:
            print(f'batch {batch}: {type(err).__name__}, no figure')
            return {}


def measure_memory(
    args: argparse.Namespace, batch: int, brute_force: bool
) -> dict[str, float]:
    """Measure one batch."""
    device, frames = harness.set_up(args), args.frames or 12
    way = TrainingStep(args, 2, frames, brute_force)
    way()
    way.draw(batch, frames)
    extra = harness.extra_memory(way, device)
    return dict(MiB=extra / MIB, kept=way.kept_bytes() / batch**2 / 1024)


# Several processes ----------------------------------------------------------


def scaling() -> None:
    """A step over several gloo processes.

    Every process has one thread and its share of the rows of one joint batch.
    The table has the operations of a process over those of one process alone,
    the time of a step, and the difference of the gradients. Where there are
    fewer cores than processes, times say little.
    """
    bench = harness.start(
        scaling.__doc__,
        'head',
        batch=(32, 'pairs B of the joint batch'),
        processes=([1, 2, 4], 'numbers W; each must divide the batch'),
        dtype='float32',
        threads=1,
    )
    args = bench.args
    uneven = [world for world in args.processes if args.batch % world]
    if uneven:
        bench.refuse(f'--batch {args.batch} cannot be dealt to {uneven}.')
    alone: dict[str, Any] = {}
    for world in sorted({1, *args.processes}):
        with tempfile.TemporaryDirectory() as folder:
            start_processes(
                worker, (world, args, folder), world, start_method='forkserver'
            )
            files = [Path(folder) / f'{rank}.pt' for rank in range(world)]
            ranks = list(map(torch.load, files))
        alone = alone or ranks[0]
        most = max(rank['flops'] for rank in ranks)
        took = max(rank['seconds'] for rank in ranks)
        row = {
            'processes': world,
            'GFLOP of a process': most / 1e9,
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
    """Join the group of processes, measure, and write the result."""
    os.environ['OMP_NUM_THREADS'] = str(args.threads)
    harness.set_up(args)
    options = dict(rank=rank, world_size=world, timeout=timedelta(minutes=30))
    dist.init_process_group('gloo', f'file://{folder}/init', **options)
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
    text, frames, mask = (
        x.detach()[rank::world].clone() for x in way.features
    )
    way.features = text.requires_grad_(), frames.requires_grad_(), mask
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
    took = statistics.median(times)
    return dict(flops=flops, seconds=took, gradients=gradients)


def gradient_difference(
    got: dict[str, Tensor], expected: dict[str, Tensor]
) -> float:
    """Largest difference, relative to the largest gradient of its parameter.

    Gradients that are rounding alone are compared with the largest of all.
    """
    sizes = {name: float(x.abs().max()) for name, x in expected.items()}
    largest = max(sizes.values())
    return max(
        float((got[name] - expected[name]).abs().max())
        / (size if size > 1e-5 * largest else largest)
        for name, size in sizes.items()
    )


if __name__ == '__main__':
    # imported once, in the process that all others are forked from
    multiprocessing.set_forkserver_preload(['torch', 'eaglenet_mm.models'])
    harness.run_mode({x.__name__: x for x in (step, memory, scaling)})
