"""What each gloo process of the distributed loop test runs."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.registry import init_default_scope

from eaglenet_mm.engine.loops.video_features import gather_rows
from eaglenet_mm.registry import METRICS
from tests.engine.loops import coloured_scenes
from tests.engine.loops.tiny_retrieval import TinyRetriever, build_runner


def start(
    rank: int, world_size: int, init_file: str, seconds: int = 60
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{init_file}',
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=seconds),
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


def measure_moments(
    rank: int, world_size: int, init_file: str, out_dir: str, ann_file: str
) -> None:
    """Measure moments of a set of an odd number of videos."""
    start(rank, world_size, init_file)
    metrics = coloured_scenes.build_runner(
        coloured_scenes.dataset_config(Path(ann_file)),
        Path(out_dir),
        moments=dict(segment=1.5, overlap=0.25, corpus=True),
        batch_size=1,
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None
            )
        ),
    ).test()
    with Path(f'{out_dir}/moments_{rank}.pkl').open('wb') as file:
        pickle.dump(metrics, file)
    dist.barrier()
    dist.destroy_process_group()


@METRICS.register_module()
class FailingMetric(BaseMetric):
    """Takes the rows of rank 0; the other rank dies or raises."""

    def __init__(self, how: str) -> None:
        super().__init__(collect_device='gpu', prefix='failing')
        self.how = how

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        if get_rank() == 1:
            if self.how == 'die':
                os._exit(3)
            raise ValueError('rank 1 cannot take its rows')

    def compute_metrics(self, results: list) -> dict:
        return {}


def fail(rank: int, init_file: str, out_dir: str, how: str) -> None:
    """Evaluate while rank 1 fails; write how and when it ended for rank 0."""
    start(rank, 2, init_file, seconds=20)
    stage, how = how.split('-')
    if stage == 'encoding' and rank == 1:
        TinyRetriever.encode_video = lambda *_: os._exit(3)
    runner = build_runner(
        out_dir,
        dataset=dict(num_videos=20, max_captions=10),  # two blocks,
        evaluator=[
            dict(type='FailingMetric', how=how),
            dict(type='RetrievalRankMetric'),
        ]
        if stage == 'rows'
        else dict(type='RetrievalRankMetric'),
        model=dict(head=dict(type='BestFrameHead')),
    )
    begun = time.monotonic()
    try:
        runner.test()
    except RuntimeError as error:
        if rank == 0:
            Path(f'{out_dir}/error.txt').write_text(
                f'{time.monotonic() - begun:.1f} {error}'
            )
        raise


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
