"""Backbones under ``DistributedDataParallel``, every parameter in use."""

from __future__ import annotations

import copy
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from eaglenet_mm.models import TextVideoRetriever
from tests.models.encoders.tiny_backbones import ENCODERS, FRAMES, STEPS
from tests.models.tiny import TEXT_ENCODER, WIDTH, eaglenet_head, tiny_inputs
from tests.started import run_ranks

NAMES = ('timm vit', 'swin3d', 'videomae map', 'slowfast')


def gradients(name: str, rank: int, world: int) -> dict[str, torch.Tensor]:
    """Gradients of the video encoder after two steps."""
    torch.manual_seed(0)
    model = TextVideoRetriever(
        TEXT_ENCODER,
        dict(
            type='RegisteredEncoder',
            embed_dim=WIDTH,
            **copy.deepcopy(ENCODERS[name]),
        ),
        eaglenet_head(num_frames=STEPS.get(name, FRAMES)),
    ).double()
    model.train()
    for module in model.modules():
        # its statistics would be those of the process
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    wrapped = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(2):
        inputs = tiny_inputs(4, seed=step)
        generator = torch.Generator().manual_seed(step)
        size = model.video_encoder.image_size
        inputs['pixels'] = torch.randn(
            4, FRAMES, 3, *size, generator=generator
        )
        inputs['frame_mask'] = torch.ones(4, FRAMES, dtype=torch.bool)
        inputs['frame_mask'][1, 2:] = False
        mine = {
            key: (x.double() if x.is_floating_point() else x)[rank::world]
            for key, x in inputs.items()
        }
        optimizer.zero_grad()
        losses = wrapped(mine, mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        if step == 0:
            optimizer.step()
    return {
        key: parameter.grad
        for key, parameter in model.video_encoder.named_parameters()
        if parameter.requires_grad
    }


def worker(rank: int, init_file: str, out_dir: str) -> None:
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{init_file}',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    for place, name in enumerate(NAMES):
        torch.save(gradients(name, rank, 2), f'{out_dir}/{place}-{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.nightly
@pytest.mark.dist
@pytest.mark.timeout(180)
def test_gradient_of_two_processes(tmp_path: Path) -> None:
    run_ranks(worker, str(tmp_path / 'init'), str(tmp_path))
    for place, name in enumerate(NAMES):
        alone = gradients(name, 0, 1)
        for rank in range(2):
            got = torch.load(tmp_path / f'{place}-{rank}.pt')
            assert set(got) == set(alone)
            for key, expected in alone.items():
                torch.testing.assert_close(
                    got[key],
                    expected,
                    rtol=1e-7,
                    atol=1e-9,
                    msg=lambda text, where=f'{name}: {key}': (
                        f'{where}: {text}'
                    ),
                )
