from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from eaglenet_mm.engine.schedulers import WarmupCosineLR, schedule_factor
from eaglenet_mm.registry import PARAM_SCHEDULERS


def make_wrapper(accumulative_counts: int = 1) -> OptimWrapper:
    groups = [
        dict(params=[nn.Parameter(torch.ones(1))], lr=1.0),
        dict(params=[nn.Parameter(torch.ones(1))], lr=0.01),
    ]
    return OptimWrapper(
        torch.optim.SGD(groups), accumulative_counts=accumulative_counts
    )


def rates(scheduler, wrapper, iterations: int) -> list[float]:
    """Rate that each iteration finds, stepping as MMEngine's hook does."""
    found = []
    for _ in range(iterations):
        first, second = (
            group['lr'] for group in wrapper.optimizer.param_groups
        )
        assert second == pytest.approx(0.01 * first)
        found.append(first)
        if wrapper.should_sync():
            wrapper.step()
        wrapper._inner_count += 1
        scheduler.step()
    return found


def test_factors_by_hand():
    assert schedule_factor(0.0, 0.1, 'cosine') == 0.0
    assert schedule_factor(0.05, 0.1, 'cosine') == 0.5
    # not restarted after the warm-up: the cosine of the overall progress
    assert schedule_factor(0.1, 0.1, 'cosine') == pytest.approx(
        0.5 * (1 + math.cos(0.1 * math.pi))
    )
    assert schedule_factor(0.5, 0.1, 'cosine') == pytest.approx(0.5)
    assert schedule_factor(0.55, 0.1, 'linear') == pytest.approx(0.5)
    assert schedule_factor(2.0, 0.1, 'linear') == 0.0
    assert schedule_factor(0.7, 0.1, 'constant') == 1.0
    assert schedule_factor(0.0, 0.0, 'cosine') == 1.0


@pytest.mark.parametrize('decay', ['cosine', 'linear', 'constant'])
def test_one_iteration_is_one_update(decay):
    wrapper = make_wrapper()
    scheduler = PARAM_SCHEDULERS.build(
        dict(
            type='WarmupCosineLR',
            decay=decay,
            warmup_ratio=0.2,
            convert_to_iter_based=True,
            by_epoch=True,
            end=4,
        ),
        default_args=dict(optimizer=wrapper, epoch_length=5),
    )
    assert rates(scheduler, wrapper, 20) == pytest.approx(
        [schedule_factor(i / 20, 0.2, decay) for i in range(20)]
    )


def test_accumulation_counts_updates():
    """The release's total: (10 + 3) / 4 * 2 updates for 20 iterations."""
    wrapper = make_wrapper(accumulative_counts=4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scheduler = WarmupCosineLR.build_iter_from_epoch(
            wrapper, end=2, epoch_length=10
        )
        found = rates(scheduler, wrapper, 20)
    assert scheduler.total_steps == pytest.approx(6.5)
    assert found == pytest.approx(
        [schedule_factor(i // 4 / 6.5, 0.1, 'cosine') for i in range(20)]
    )


def test_by_iteration():
    wrapper = make_wrapper()
    scheduler = PARAM_SCHEDULERS.build(
        dict(type='WarmupCosineLR', by_epoch=False, end=10),
        default_args=dict(optimizer=wrapper, epoch_length=5),
    )
    assert scheduler.total_steps == 10
    assert rates(scheduler, wrapper, 10) == pytest.approx(
        [schedule_factor(i / 10, 0.1, 'cosine') for i in range(10)]
    )
    accumulated = WarmupCosineLR(make_wrapper(3), by_epoch=False, end=10)
    assert accumulated.total_steps == pytest.approx(4)


@pytest.mark.parametrize('accumulation', [1, 3])
def test_resuming_is_exact(accumulation):
    def make():
        wrapper = make_wrapper(accumulation)
        return wrapper, WarmupCosineLR(wrapper, by_epoch=False, end=12)

    wrapper, scheduler = make()
    rates(scheduler, wrapper, 5)
    state = copy.deepcopy(scheduler.state_dict())
    groups = copy.deepcopy(wrapper.optimizer.state_dict())
    expected = rates(scheduler, wrapper, 7)
    other, resumed = make()
    other.optimizer.load_state_dict(groups)
    resumed.load_state_dict(state)
    other._inner_count = 5
    assert rates(resumed, other, 7) == expected
    plain = (int, float, str, bool, list, type(None))
    assert all(isinstance(value, plain) for value in state.values())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(end=5), 'got by_epoch=True'),
        (dict(by_epoch=False), "needs the length .* set 'end'"),
        (dict(by_epoch=False, end=5, warmup_ratio=1.0), r'but got 1\.0'),
        (dict(by_epoch=False, end=5, decay='step'), "but got 'step'"),
        (dict(by_epoch=False, total_steps=0), "'total_steps' .* got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        WarmupCosineLR(make_wrapper(), **options)


@pytest.mark.parametrize(
    'options',
    [dict(by_epoch=False, epoch_length=3), dict(epoch_length=0), {}],
)
def test_conversion_needs_epochs(options):
    with pytest.raises(ValueError, match='convert_to_iter_based needs'):
        WarmupCosineLR.build_iter_from_epoch(make_wrapper(), end=2, **options)
