"""What each gloo process of the distributed loop test runs."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope

from eaglenet_mm.engine.loops.gather_by_id import gather_rows
from tests.engine.loops.tiny_retrieval import build_runner


def start(rank: int, world_size: int, init_file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{init_file}',
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    init_default_scope('eaglenet_mm')


def evaluate(
    rank: int, world_size: int, init_file: str, out_dir: str, settings: list
) -> None:
    """Run several evaluations and write metrics and rows of each."""
    start(rank, world_size, init_file)
    for number, options in enumerate(settings):
        path = f'{out_dir}/rows{number}.pkl'
        runner = build_runner(
            out_dir,
            evaluator=[
                dict(type='RetrievalRankMetric'),
                dict(
                    type='DumpResults',
                    out_file_path=path,
                    collect_dir=f'{out_dir}/collect{number}',
                ),
            ],
            cfg=dict(
                model_wrapper_cfg=dict(
                    type='MMDistributedDataParallel', device_ids=None
                )
            ),
            **options,
        )
        metrics = runner.test()
        with Path(f'{out_dir}/metrics{number}_{rank}.pkl').open('wb') as file:
            pickle.dump(metrics, file)
        del runner  # before the group: else DDP's destructor can deadlock
    dist.barrier()
    dist.destroy_process_group()


def gather(rank: int, world_size: int, init_file: str, out_dir: str) -> None:
    """Gather uneven rows, and rows that one rank lacks altogether."""
    start(rank, world_size, init_file)
    device = torch.device('cpu')
    uneven = torch.arange(3.0 if rank == 0 else 1.0)[:, None] + 10 * rank
    lacking = None if rank == 0 else torch.tensor([[True, False]])
    result = (gather_rows(uneven, device), gather_rows(lacking, device))
    torch.save(result, f'{out_dir}/{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()
