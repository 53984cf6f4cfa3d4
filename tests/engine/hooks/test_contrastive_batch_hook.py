from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import MODEL_WRAPPERS
from torch import nn
from torch.utils.data import DataLoader

from eaglenet_mm.engine.hooks import contrastive_batch_hook
from eaglenet_mm.engine.hooks.contrastive_batch_hook import (
    check_training_steps,
)
from eaglenet_mm.registry import HOOKS


@pytest.fixture
def lines(monkeypatch) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    monkeypatch.setattr(
        contrastive_batch_hook,
        'print_log',
        lambda text, logger, level=logging.INFO: found.append((level, text)),
    )
    return found


@MODEL_WRAPPERS.register_module(force=True)
class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def run(
    batch_size=8,
    processes=4,
    accumulation=1,
    cfg=None,
    sampler=None,
    micro_batch=None,
    wrapped=0,
    monkeypatch=None,
    **options,
):
    monkeypatch.setattr(
        contrastive_batch_hook, 'get_world_size', lambda: processes
    )
    model = nn.Module()
    if micro_batch is not None:
        model.encoder_micro_batch = micro_batch
    for _ in range(wrapped):
        model = Wrapper(model)
    runner = SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(
            batch_size=batch_size, batch_sampler=sampler
        ),
        optim_wrapper=SimpleNamespace(_accumulative_counts=accumulation),
        cfg=cfg or {},
    )
    HOOKS.build(dict(type='ContrastiveBatchHook', **options)).before_train(
        runner
    )


def test_the_batch_is_stated(lines, monkeypatch):
    run(monkeypatch=monkeypatch)
    ((level, text),) = lines
    assert level == logging.INFO
    for value in ('32 pairs', '8 a process', 'no gradient accumulation'):
        assert value in text


def test_accumulation_is_stated(lines, monkeypatch):
    sampler = SimpleNamespace(batch_size=2)
    run(
        batch_size=None,
        sampler=sampler,
        accumulation=4,
        monkeypatch=monkeypatch,
    )
    assert 'batch: 8 pairs' in lines[0][1]
    assert 'encoded at once; gradients of 4 such batches' in lines[0][1]
    assert 'does not grow the contrastive batch' in lines[0][1]


@pytest.mark.parametrize('wrapped', [0, 2])
def test_micro_batches_are_stated(lines, monkeypatch, wrapped):
    run(micro_batch=3, wrapped=wrapped, monkeypatch=monkeypatch)
    assert 'micro-batches of 3' in lines[0][1]


def test_micro_batches_that_hold_all_are_none(lines, monkeypatch):
    run(micro_batch=8, monkeypatch=monkeypatch)
    assert 'encoded at once' in lines[0][1]


@pytest.mark.parametrize(
    'options',
    [
        dict(cfg=dict(auto_scale_lr=dict(base_batch_size=64))),
        dict(expected_batch_size=64),
        dict(
            cfg=dict(auto_scale_lr=dict(base_batch_size=32)),
            expected_batch_size=64,
        ),
    ],
)
def test_another_batch_is_a_warning(lines, monkeypatch, options):
    run(monkeypatch=monkeypatch, **options)
    level, text = lines[1]
    assert level == logging.WARNING
    assert 'made for 64 pairs in one loss, but this run has 32' in text


def test_the_right_batch_is_none(lines, monkeypatch):
    run(expected_batch_size=32, monkeypatch=monkeypatch)
    assert len(lines) == 1


def test_unknown_batch_size(monkeypatch):
    with pytest.raises(ValueError, match='needs to know the batch size'):
        run(batch_size=None, monkeypatch=monkeypatch)


def test_loaders_of_different_length(monkeypatch):
    """One process would wait for a batch of the other for ever."""
    monkeypatch.setattr(
        contrastive_batch_hook, 'all_gather_object', lambda own: [own, 3]
    )
    runner = SimpleNamespace(train_dataloader=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r'they have \[4, 3\].*round_up=True'):
        HOOKS.build(dict(type='ContrastiveBatchHook')).before_train(runner)


class Loop:
    max_epochs = max_iters = 3


def loader(items, batch_size, *, drop_last=True, sampler=None):
    data = list(range(items))
    return DataLoader(
        data,
        batch_size=batch_size,
        drop_last=drop_last,
        sampler=None if sampler is None else sampler(data),
    )


def half(data):
    sampler = DefaultSampler(data)
    sampler.num_samples = len(data) // 2
    return sampler


@pytest.mark.parametrize(
    ('items', 'size', 'processes', 'sampler', 'match'),
    [
        (7, 8, 1, None, 'has 7 items, but a batch .* 8, .*no step.*to 7 or'),
        (
            *(20, 16, 2, half),
            'has 20 items, 10 for each of 2, but a batch .* has 16.*to 10 or',
        ),
        (7, 8, 1, InfiniteSampler, 'has 7 items.* has 8, .*own negative'),
    ],
)
def test_fewer_items_than_a_batch(
    monkeypatch, items, size, processes, sampler, match
):
    monkeypatch.setattr(
        contrastive_batch_hook, 'get_world_size', lambda: processes
    )
    with pytest.raises(ValueError, match=match):
        check_training_steps(loader(items, size, sampler=sampler), Loop())


def test_batches_there_are(monkeypatch):
    check_training_steps(loader(8, 8), Loop())
    check_training_steps(loader(7, 8, drop_last=False), Loop())


@pytest.mark.parametrize('name', ['max_epochs', 'max_iters'])
@pytest.mark.parametrize('length', [0, -1])
def test_a_loop_without_a_step(name, length):
    loop = Loop()
    setattr(loop, name, length)
    with pytest.raises(ValueError, match=rf'{name} .* but got {length}'):
        check_training_steps(loader(8, 8), loop)
