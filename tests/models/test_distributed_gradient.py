"""Several processes give the gradient of one on the joint batch."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eaglenet_mm.models.heads import MeanPoolingHead
from eaglenet_mm.models.losses import score_losses
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import RetrievalDataSample
from tests.models.every_head import CASES, config_of
from tests.models.live_bytes import LiveBytes
from tests.models.tiny import (
    eaglenet_head,
    random_features,
    tiny_inputs,
    tiny_retriever,
)
from tests.started import run_ranks

BATCHES = {2: 6, 4: 4}  # with four processes each has a single pair
#: Videos of the pairs, alike within a process and over two and four.
SAME_VIDEO = (0, 1, 0, 0, 2, 1)
INFO_NCE = dict(type='InfoNCELoss')
ENERGY = dict(type='EnergyMatchingLoss')
SAMPLER = dict(num_steps=3, buffer_size=6)
HEADS = {
    'eaglenet': eaglenet_head(),
    'eaglenet-masked-chunked': eaglenet_head(
        use_frame_mask=True, memory_budget=30_000
    ),
    'eaglenet-bilinear-info-nce': eaglenet_head(
        loss_match=INFO_NCE,
        loss_energy=dict(
            **ENERGY, energy=dict(type='BilinearEnergy'), sampler=SAMPLER
        ),
    ),
    'eaglenet-cosine-gat': eaglenet_head(
        graph=dict(type='gat', version=2),
        prior='normal',
        loss_energy=dict(
            **ENERGY,
            energy=dict(type='CosineEnergy', reduction='max'),
            sampler=SAMPLER,
        ),
    ),
    'mean-pooling-sigmoid': dict(
        type='MeanPoolingHead', loss_match=dict(type='PairwiseSigmoidLoss')
    ),
    # other pairs of the same video
    **{
        f'{name}-{same_video}': config
        for same_video in ('ignore', 'positive')
        for name, config in (
            (
                'eaglenet',
                eaglenet_head(
                    loss_match=dict(
                        type='PairwiseSigmoidLoss', same_video=same_video
                    ),
                    loss_energy=dict(
                        **ENERGY, sampler=SAMPLER, same_video=same_video
                    ),
                    memory_budget=30_000,
                ),
            ),
            (
                'text-proxy',
                config_of(
                    'TextProxyHead',
                    '',
                    loss_match=dict(INFO_NCE, same_video=same_video),
                ),
            ),
            (
                'micro-batches',
                dict(
                    type='MeanPoolingHead',
                    loss_match=dict(INFO_NCE, same_video=same_video),
                    encoder_micro_batch=2,
                ),
            ),
        )
    },
    'loss-of-another-package': dict(
        type='MeanPoolingHead', loss_match=dict(type='TraceLoss')
    ),
    'mean-pooling-info-nce': dict(type='MeanPoolingHead', loss_match=INFO_NCE),
    # one of every other head, its dropout and noise in use
    **{
        f'{name} {variant}'.strip(): config_of(
            name, variant, memory_budget=120_000
        )
        for name, variant in CASES
        if name not in ('EagleNetHead', 'MeanPoolingHead')
        or variant == 'transformer'
    },
}


#: By day: every head, chunks computed again, ids and micro-batches.
ONE_OF_EACH = [
    'eaglenet-masked-chunked',
    'micro-batches-positive',
    'text-proxy-ignore',
    'loss-of-another-package',
    'CrossTransformerHead',
    'XPoolHead',
    'TMASSHead',
    'TS2NetHead',
    'WTIHead decorrelation',
]


@MODELS.register_module(force=True)
class TraceLoss(nn.Module):
    """A loss that knows of no processes."""

    def forward(self, scores: Tensor) -> Tensor:
        """Compare matching pairs with the best text of each video."""
        return scores.amax(dim=0).sum() - scores.diagonal().square().sum()


def run(
    head: dict, rank: int, world: int, batch: int, device: str = 'cpu'
) -> dict[str, Any]:
    """Take two training steps, return losses and gradients of the second."""
    torch.manual_seed(0)
    head = dict(head)
    micro_batch = head.pop('encoder_micro_batch', None)
    model = tiny_retriever(head).double().to(device).train()
    model.encoder_micro_batch = micro_batch
    wrapped = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(2):
        rows = slice(rank, None, world)  # as samplers deal items out
        inputs = {
            name: (x.double() if x.is_floating_point() else x)[rows].to(device)
            for name, x in tiny_inputs(batch, seed=step).items()
        }
        optimizer.zero_grad()
        samples = [
            RetrievalDataSample(metainfo=dict(video_id=f'video{number}'))
            for number in SAME_VIDEO[:batch]
        ]
        losses = wrapped(inputs, samples[rows], mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        if step == 0:
            optimizer.step()
    gradients = {
        name: parameter.grad.cpu().clone()
        for name, parameter in model.named_parameters()
    }
    buffers = {name: x.cpu().clone() for name, x in model.named_buffers()}
    losses = {name: x.detach().cpu() for name, x in losses.items()}
    return dict(losses=losses, gradients=gradients, buffers=buffers)


def joined(rank: int, world: int, init_file: str) -> None:
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{init_file}',
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )


def worker(
    rank: int,
    world: int,
    init_file: str,
    names: list[str],
    out_dir: str,
    device: str,
) -> None:
    joined(rank, world, init_file)
    for place, name in enumerate(names):
        result = run(HEADS[name], rank, world, BATCHES[world], device)
        torch.save(result, f'{out_dir}/{place}-{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.dist
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ('names', 'world'),
    [
        (ONE_OF_EACH, 2),
        pytest.param(
            [name for name in HEADS if name not in ONE_OF_EACH],
            2,
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            ['eaglenet', 'text-proxy-ignore', 'micro-batches-positive'],
            4,
            marks=pytest.mark.nightly,
        ),
    ],
    ids=['one of each', 'the others', 'four processes'],
)
def test_gradient_of_processes(
    names: list[str], world: int, tmp_path: Path
) -> None:
    check_processes(names, world, tmp_path)


def check_processes(
    names: list[str], world: int, folder: Path, device: str = 'cpu'
) -> None:
    """Train heads in several gloo processes, all on one device."""
    run_ranks(
        worker,
        world,
        str(folder / 'init'),
        names,
        str(folder),
        device,
        world=world,
    )
    for place, name in enumerate(names):
        files = [folder / f'{place}-{rank}.pt' for rank in range(world)]
        compare(name, world, files, device)


def compare(name: str, world: int, files: list[Path], device: str) -> None:
    """Compare what processes saved with one process on the joint batch."""
    alone = run(HEADS[name], 0, 1, BATCHES[world], device)
    largest = max(float(g.abs().max()) for g in alone['gradients'].values())
    for file in files:
        got = torch.load(file)
        for part in ('losses', 'buffers'):
            for key, expected in alone[part].items():
                torch.testing.assert_close(
                    got[part][key],
                    expected,
                    rtol=1e-9,
                    atol=1e-9,
                    msg=lambda text: f'{name}: {text}',
                )
        for key, expected in alone['gradients'].items():
            size = float(expected.abs().max())
            scale = size if size > 1e-9 * largest else largest
            error = float((got['gradients'][key] - expected).abs().max())
            assert error <= 1e-8 * scale, (name, key)


#: Pairs of both processes, what is wrong in the second, what both say.
FAULTS = [
    ((3, 2), '', ['[3, 2]', 'drop_last=True']),
    ((2, 0), '', ['[2, 0]', 'drop_last=True']),
    ((2, 2), 'nan', ['Process 1: ', 'text features of 1 of 2 items']),
    ((2, 2), 'mask', ['Process 1: ', 'real frame']),
    ((2, 2), 'ids', ['[False, True]']),
]


def faulty_worker(rank: int, init_file: str, out_dir: str) -> None:
    joined(rank, 2, init_file)
    model = tiny_retriever(eaglenet_head(use_frame_mask=True)).train()
    for place, (sizes, fault, _) in enumerate(FAULTS):
        text, video = random_features(
            sizes[rank], sizes[rank], dtype=torch.float32
        )
        if rank == 1 and fault == 'nan':
            text.embeds[1:] = float('nan')
        if rank == 1 and fault == 'ids':
            video.video_ids = torch.arange(2)
        if rank == 1 and fault == 'mask':
            video.frame_mask[1:] = False
        try:
            model.head.loss(text, video)
        except ValueError as error:
            Path(out_dir, f'{place}-{rank}.txt').write_text(str(error))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.dist
@pytest.mark.timeout(120)
def test_a_batch_that_is_wrong_in_one_process(tmp_path: Path) -> None:
    """Every process gets the error, none waits for another."""
    run_ranks(faulty_worker, str(tmp_path / 'init'), str(tmp_path))
    for place, (_, _, expected) in enumerate(FAULTS):
        for rank in range(2):
            said = (tmp_path / f'{place}-{rank}.txt').read_text()
            assert all(words in said for words in expected), said


def memory_worker(rank: int, init_file: str, out_dir: str) -> None:
    joined(rank, 2, init_file)
    score_losses.BLOCK_NUMBERS['cpu'] = 2**14
    peaks = []
    for kind in ('PairwiseSigmoidLoss', 'InfoNCELoss'):
        head = MeanPoolingHead(loss_match=dict(type=kind))
        text, video = random_features(512, 512, dtype=torch.float32)
        text.embeds.requires_grad_()
        with LiveBytes() as live:
            head.loss(text, video)['loss_match'].backward()
        peaks.append(live.peak)
    torch.save(peaks, f'{out_dir}/{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.dist
@pytest.mark.timeout(120)
def test_a_process_holds_its_own_rows_alone(tmp_path: Path) -> None:
    """Of 1024 pairs each has 512 rows of 1024 scores, and their gradient."""
    run_ranks(memory_worker, str(tmp_path / 'init'), str(tmp_path))
    rows = 512 * 1024 * 4
    for rank in range(2):
        for peak in torch.load(tmp_path / f'{rank}.pt'):
            assert 2 * rows <= peak <= 2.5 * rows
