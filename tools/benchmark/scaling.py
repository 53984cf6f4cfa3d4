"""A training step of the head over several gloo processes.

    python tools/benchmark/scaling.py --json scaling.json

Every process has one thread, its share of the rows of one joint batch, and
random features. Reports the operations of a process against 1/W of those of
one process, time a step, and how far gradients are from those of one process.
Run it from a checkout. Where there are fewer cores than processes, times say
little; operations do not depend on that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from harness import (
    fork_server,
    make_parser,
    print_table,
    random_features,
    seconds,
    set_up,
    start,
)
from rates import count_flops
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel
from training_objective import add_objective_options, training_head

from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures

TIME_OUT = timedelta(minutes=30)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, frames=12, threads=1, repeats=3)
    add = parser.add_argument
    add('--batch', type=int, default=32, help='pairs B of the joint batch')
    add(
        '--processes',
        type=int,
        nargs='+',
        default=[1, 2, 4],
        help='numbers of processes W; each must divide the batch',
    )
    add_objective_options(parser)
    args = parser.parse_args()
    uneven = [world for world in args.processes if args.batch % world]
    if uneven:
        parser.error(f'--batch {args.batch} cannot be dealt to {uneven}.')
    if torch.device(args.device).type != 'cpu':
        parser.error('gloo processes compute on the CPU; leave --device out.')
    if args.dtype != 'float32':
        parser.error('--dtype: this benchmark is of float32 alone.')
    args.processes = sorted({1, *args.processes})
    return args


class HeadLoss(nn.Module):
    """The head's loss as a forward pass, which is what DDP wraps."""

    def __init__(self, head: EagleNetHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, text: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Add up the losses."""
        losses = self.head.loss(
            TextFeatures(text), VideoFeatures(frames, mask)
        )
        terms = [v for k, v in losses.items() if 'loss' in k]
        return torch.stack(terms).sum()


def measure(rank: int, world: int, args: argparse.Namespace) -> dict:
    """Run steps as one process; gradients are those of the first."""
    model: nn.Module = HeadLoss(training_head(args, args.frames))
    if world > 1:
        model = DistributedDataParallel(model)
    text, video = random_features(args, args.batch, args.batch, args.frames)
    rows = slice(rank, None, world)  # as samplers deal items out
    sides = [
        side[rows].clone().requires_grad_()
        for side in (text.embeds, video.frames)
    ]

    def step() -> None:
        model.zero_grad()
        model(*sides, video.frame_mask[rows]).backward()

    step()
    gradients = {
        # DDP puts its own name in front
        name.removeprefix('module.'): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    flops = count_flops(step)
    times = []
    for _ in range(max(1, args.repeats)):
        if world > 1:
            dist.barrier()
        times.append(seconds(step, torch.device('cpu')))
    return dict(
        flops=flops, seconds=statistics.median(times), gradients=gradients
    )


def worker(
    rank: int, world: int, args: argparse.Namespace, folder: str
) -> None:
    """Join the processes, and write what this one measures."""
    os.environ['OMP_NUM_THREADS'] = str(args.threads)
    set_up(args)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/init',
        rank=rank,
        world_size=world,
        timeout=TIME_OUT,
    )
    # the model is gone before the group, or DDP's destructor can deadlock
    torch.save(measure(rank, world, args), f'{folder}/{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def run(world: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run some processes and give what each measured."""
    fork_server()  # makes the start of processes fast
    with tempfile.TemporaryDirectory() as folder:
        start_processes(
            worker,
            (world, args, folder),
            nprocs=world,
            start_method='forkserver',
        )
        return [
            torch.load(Path(folder) / f'{rank}.pt') for rank in range(world)
        ]


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


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    bench = start(args)
    cases: list[dict] = []
    alone: dict[str, Any] = {}
    for world in args.processes:
        ranks = run(world, args)
        alone = alone or ranks[0]
        most = max(rank['flops'] for rank in ranks)
        took = max(rank['seconds'] for rank in ranks)
        cases.append(
            dict(
                processes=world,
                flops_per_process=[rank['flops'] for rank in ranks],
                flop_share=most / alone['flops'],
                flop_share_times_processes=most / alone['flops'] * world,
                seconds=took,
                speed_up=alone['seconds'] / took,
                gradient_difference=max(
                    gradient_difference(rank['gradients'], alone['gradients'])
                    for rank in ranks
                ),
            )
        )
        bench.write(cases=cases)
    print_table(
        f'Training step of the head, joint batch {args.batch}, '
        f'D={args.dim}, F={args.frames}, S={args.candidates}, {args.energy}',
        [
            {
                'processes': case['processes'],
                'GFLOP of a process': max(case['flops_per_process']) / 1e9,
                'share': case['flop_share'],
                'share x W': case['flop_share_times_processes'],
                's a step': case['seconds'],
                'speed-up': case['speed_up'],
                'gradient difference': case['gradient_difference'],
            }
            for case in cases
        ],
    )


if __name__ == '__main__':
    main()
