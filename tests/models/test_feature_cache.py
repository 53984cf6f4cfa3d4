"""A batch encoded in micro-batches has the gradient of the whole batch."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import Tensor

from eaglenet_mm.engine import AutocastOptimWrapper
from eaglenet_mm.models import TextVideoRetriever
from eaglenet_mm.structures import RetrievalDataSample
from tests.models.test_distributed_gradient import HEADS, SAME_VIDEO
from tests.models.tiny import (
    FRAMES,
    TEXT_ENCODER,
    VIDEO_ENCODER,
    VOCABULARY,
    WORDS,
    tiny_inputs,
)
from tests.started import run_ranks

BATCH = 6
WORLD = 2


def retriever(
    head: dict, size: int | None, **encoder_options: Any
) -> TextVideoRetriever:
    torch.manual_seed(0)
    head = {k: v for k, v in head.items() if k != 'encoder_micro_batch'}
    return TextVideoRetriever(
        text_encoder=dict(
            TEXT_ENCODER,
            output_tokens=head['type'] == 'WTIHead',
            **encoder_options,
        ),
        video_encoder=dict(
            VIDEO_ENCODER,
            output_patches=head['type'] == 'TS2NetHead',
            **encoder_options,
        ),
        head=head,
        data_preprocessor=dict(
            type='RetrievalDataPreprocessor', num_frames=FRAMES
        ),
        encoder_micro_batch=size,
    ).train()


def losses_and_gradients(
    model: TextVideoRetriever,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take two training steps in float64, return what the second has.

    The replay buffer of the energies is filled by the first.
    """
    model.double()
    for seed in range(2):
        inputs = {
            name: x.double() if x.is_floating_point() else x
            for name, x in tiny_inputs(BATCH, seed=seed).items()
        }
        model.zero_grad()
        samples = [
            RetrievalDataSample(metainfo=dict(video_id=f'video{number}'))
            for number in SAME_VIDEO[:BATCH]
        ]
        losses = model(inputs, samples, mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k).backward()
    return (
        {name: value.detach() for name, value in losses.items()},
        {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        },
    )


def assert_same(
    found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float
) -> None:
    """Compare each tensor by its own size, noise by that of the largest."""
    assert set(found) == set(expected)
    largest = max(float(x.abs().max()) for x in expected.values())
    for name, value in expected.items():
        size = float(value.abs().max())
        scale = size if size > 1e-9 * largest else largest
        error = float((found[name] - value).abs().max())
        assert error <= tolerance * scale, name


@pytest.mark.parametrize('size', [1, 2, 4])
@pytest.mark.parametrize('name', HEADS)
def test_gradient_is_that_of_the_whole_batch(name: str, size: int) -> None:
    whole = losses_and_gradients(retriever(HEADS[name], None))
    parts = losses_and_gradients(retriever(HEADS[name], size))
    for found, expected in zip(parts, whole, strict=True):
        assert_same(found, expected, 1e-9)


@pytest.mark.parametrize(
    'frozen',
    [('video_encoder',), ('text_encoder',), ('text_encoder', 'video_encoder')],
)
def test_frozen_encoders(frozen: tuple[str, ...]) -> None:
    results, sizes = [], []
    for size in (None, 4):
        model = retriever(HEADS['eaglenet'], size)
        for name in frozen:
            encoder = getattr(model, name).requires_grad_(False)
            encoder.register_forward_pre_hook(
                lambda _, inputs: sizes.append(len(inputs[0]))
            )
        results.append(losses_and_gradients(model))
    # two steps: the whole batch, then its parts, none of them twice
    assert sorted(sizes) == sorted([6, 6, 4, 2, 4, 2] * len(frozen))
    for found, expected in zip(results[1], results[0], strict=True):
        assert_same(found, expected, 1e-9)
    assert not any(name.startswith(frozen) for name in results[1][1])


@pytest.mark.parametrize(
    'options', [dict(frozen='release'), dict(gradient_checkpointing=True)]
)
def test_options_of_the_encoders(options: dict) -> None:
    results = [
        losses_and_gradients(retriever(HEADS['eaglenet'], size, **options))
        for size in (None, 4)
    ]
    for found, expected in zip(results[1], results[0], strict=True):
        assert_same(found, expected, 1e-9)


def raw_batch(seed: int, rows: slice = slice(None)) -> dict[str, Any]:
    """Items as the loader gives them, of unequal numbers of frames."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(
        256, (BATCH, FRAMES, 3, 12, 12), generator=generator
    ).to(torch.uint8)
    ids = tiny_inputs(BATCH, seed=seed)['token_ids']
    assert ids.shape == (BATCH, WORDS)
    assert int(ids.max()) < VOCABULARY
    return dict(
        inputs=dict(
            frames=[x[: FRAMES - i % 2] for i, x in enumerate(frames)][rows],
            token_ids=list(ids[:, None])[rows],
        )
    )


def train(
    head: dict,
    size: int | None,
    wrapper: type[OptimWrapper] = OptimWrapper,
    accumulation: int = 2,
    rank: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Train two steps of some batches each, return the change of weights."""
    model = retriever(head, size).to(dtype)
    start = {k: p.detach().clone() for k, p in model.named_parameters()}
    trained = model
    rows = slice(None)
    if rank is not None:
        trained = MMDistributedDataParallel(model)
        rows = slice(rank, None, WORLD)  # as samplers deal items out
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optim_wrapper = wrapper(
        optimizer=optimizer, accumulative_counts=accumulation
    )
    for step in range(2 * accumulation):
        trained.train_step(raw_batch(step, rows), optim_wrapper)
    return {
        name: (parameter.detach() - start[name]) / 1e-3
        for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize('name', ['eaglenet', 'mean-pooling-info-nce'])
def test_gradient_accumulation(name: str) -> None:
    assert_same(train(HEADS[name], 4), train(HEADS[name], None), 1e-9)


def check_autocast(
    found: dict[str, Tensor],
    whole: dict[str, Tensor],
    exact: dict[str, Tensor],
) -> None:
    """Hold bfloat16 gradients to the error that the whole batch has.

    Args:
        found (dict): Of micro-batches under autocast.
        whole (dict): Of the whole batch under autocast.
        exact (dict): Of the whole batch in float64.
    """
    for side in ('text_encoder', 'video_encoder'):
        ours, theirs, truth = (
            torch.cat(
                [x.double().flatten() for k, x in of.items() if side in k]
            )
            for of in (found, whole, exact)
        )
        error = float((theirs - truth).norm())
        assert 1e-3 * truth.norm() < error < 0.2 * truth.norm()
        assert float((ours - truth).norm()) < 1.25 * error
        assert float((ours - theirs).norm()) < 0.75 * error


AUTOCAST = dict(wrapper=AutocastOptimWrapper, dtype=torch.float32)


@pytest.mark.parametrize('name', ['eaglenet', 'mean-pooling-info-nce'])
@pytest.mark.parametrize('accumulation', [1, 2])
def test_autocast(name: str, accumulation: int) -> None:
    exact = train(HEADS[name], None, accumulation=accumulation)
    whole, parts = (
        train(HEADS[name], size, accumulation=accumulation, **AUTOCAST)
        for size in (None, 2)
    )
    check_autocast(parts, whole, exact)


def worker(
    rank: int, init_file: str, name: str, options: dict, out_dir: str
) -> None:
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{init_file}',
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    change = train(HEADS[name], 2, rank=rank, **options)
    torch.save(change, f'{out_dir}/{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.dist
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('eaglenet', {}),
        pytest.param('eaglenet', AUTOCAST, marks=pytest.mark.nightly),
        pytest.param(
            'mean-pooling-info-nce', AUTOCAST, marks=pytest.mark.nightly
        ),
    ],
    ids=['float64', 'autocast', 'mean-pooling-autocast'],
)
def test_two_processes(name: str, options: dict, tmp_path: Path) -> None:
    """With ``DistributedDataParallel``, and accumulation by ``no_sync``."""
    alone = train(HEADS[name], None)
    run_ranks(
        worker,
        str(tmp_path / 'init'),
        name,
        options,
        str(tmp_path),
        world=WORLD,
    )
    for rank in range(WORLD):
        found = torch.load(tmp_path / f'{rank}.pt')
        if options:
            whole = train(HEADS[name], None, **options)
            check_autocast(found, whole, alone)
        else:
            assert_same(found, alone, 1e-9)
