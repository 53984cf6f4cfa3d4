"""BertAdam and its schedule against ``bertadam.npz``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eaglenet_mm.engine.optimizers import BertAdam
from eaglenet_mm.engine.schedulers import WarmupCosineLR, schedule_factor
from tests.golden.cases import load, tensor

MODULE = 1e-5  # tolerance of single modules


with_scalars = pytest.mark.parametrize(
    'golden', ['as stored', 'with scalars'], indirect=True
)


@pytest.fixture(scope='module')
def golden(golden_dir: Path, request: pytest.FixtureRequest) -> Any:
    """The golden file, or the same with parameters of one number scalar."""
    arrays = load(golden_dir, 'bertadam.npz')
    if getattr(request, 'param', 'as stored') == 'as stored':
        return arrays
    scalars = dict(arrays)
    for name in json.loads(str(arrays['meta']))['groups']:
        shape = arrays[f'param0/{name}'].shape
        if math.prod(shape) > 1:
            continue
        for key, array in arrays.items():
            steps = array.shape[: array.ndim - len(shape)]
            if key.endswith(f'/{name}') and array.shape == steps + shape:
                scalars[key] = array.reshape(steps)
    return scalars


def case_names(golden: Any) -> list[str]:
    return sorted(
        name.removesuffix('/meta') for name in golden if name.endswith('/meta')
    )


class Run:
    """One golden case, run again with our optimiser."""

    def __init__(self, golden: Any, case: str, dtype: torch.dtype) -> None:
        self.golden, self.case = golden, case
        self.meta = json.loads(str(golden['meta']))
        self.case_meta = json.loads(str(golden[f'{case}/meta']))
        self.names = sorted(self.meta['groups'])
        self.params = {
            name: torch.nn.Parameter(tensor(golden[f'param0/{name}'], dtype))
            for name in self.names
        }
        # one group a parameter, so that each can have the rate of its own
        # step count, as in the release
        hyper = {
            name: self.meta['hyper'][self.meta['groups'][name]]
            for name in self.names
        }
        self.base_lr = {
            name: hyper[name]['lr'] * self.case_meta['lr_scale']
            for name in self.names
        }
        self.optimizer = BertAdam(
            [
                dict(
                    params=[self.params[name]],
                    lr=self.base_lr[name],
                    weight_decay=hyper[name]['weight_decay'],
                )
                for name in self.names
            ],
            lr=0.0,
            betas=(self.meta['b1'], self.meta['b2']),
            eps=self.meta['e'],
            max_grad_norm=self.case_meta['max_grad_norm'],
        )
        self.skipped = (
            {str(item) for item in np.atleast_1d(golden['skipped'])}
            if self.case_meta['skip']
            else set()
        )

    @property
    def decay(self) -> str:
        return self.case_meta['schedule'].removeprefix('warmup_')

    def factor(self, step: int) -> float:
        total = self.case_meta['t_total']
        if total < 0:
            return 1.0
        return schedule_factor(
            step / total, self.case_meta['warmup'], self.decay
        )

    def set_gradients(self, step: int) -> set[str]:
        """Set the gradients of a step; the names that have one."""
        active = set()
        for name, param in self.params.items():
            param.grad = None
            if f'{name}@{step}' not in self.skipped:
                grad = self.golden[f'grads/{name}'][step]
                param.grad = tensor(grad, param.dtype).view_as(param)
                active.add(name)
        return active

    def stored(self, kind: str, name: str, step: int | None = None) -> Any:
        """What the release has of a parameter, in the parameter's shape."""
        array = self.golden[f'{self.case}/{kind}/{name}']
        array = array if step is None else array[step]
        return np.reshape(array, self.params[name].shape)


@with_scalars
def test_every_case_follows_the_release(golden, golden_report):
    for case in case_names(golden):
        run = Run(golden, case, torch.float32)
        counts = dict.fromkeys(run.names, 0)
        for step in range(run.meta['steps']):
            active = run.set_gradients(step)
            for group, name in zip(
                run.optimizer.param_groups, run.names, strict=True
            ):
                group['lr'] = run.base_lr[name] * run.factor(counts[name])
                used = golden[f'{case}/lr/{name}'][step]
                if name in active:
                    assert group['lr'] == pytest.approx(used, rel=1e-12)
                else:
                    assert math.isnan(used)
            run.optimizer.step()
            for name in run.names:
                golden_report(
                    f'bertadam/{case}/params/{name}',
                    run.params[name],
                    run.stored('params', name, step),
                    MODULE,
                )
                if name in active:
                    counts[name] += 1
                    golden_report(
                        f'bertadam/{case}/clipped_grad/{name}',
                        run.params[name].grad,
                        run.stored('clipped_grad', name, step),
                        MODULE,
                    )
            check_reported_rates(golden, run, counts, active, step)
        for name in run.names:
            assert counts[name] == int(golden[f'{case}/step_count/{name}'])
            state = run.optimizer.state[run.params[name]]
            for ours, theirs in [
                ('exp_avg', 'next_m'),
                ('exp_avg_sq', 'next_v'),
            ]:
                golden_report(
                    f'bertadam/{case}/{theirs}/{name}',
                    state[ours],
                    run.stored(theirs, name),
                    MODULE,
                )


def check_reported_rates(
    golden: Any,
    run: Run,
    counts: dict[str, int],
    active: set[str],
    step: int,
) -> None:
    """``get_lr_after_step``: the distinct next rates of what just moved."""
    reported = np.atleast_1d(golden[f'{run.case}/get_lr_after_step'][step])
    reported = sorted({float(x) for x in reported if not math.isnan(x)})
    rates = {run.base_lr[name] * run.factor(counts[name]) for name in active}
    for rate in reported:
        assert min(abs(rate - ours) for ours in rates) <= 1e-12
    for ours in rates:
        assert min(abs(rate - ours) for rate in reported) <= 1e-12


@with_scalars
def test_float64_runs(golden, golden_report):
    for case in case_names(golden):
        run = Run(golden, case, torch.float64)
        counts = dict.fromkeys(run.names, 0)
        for step in range(run.meta['steps']):
            active = run.set_gradients(step)
            for group, name in zip(
                run.optimizer.param_groups, run.names, strict=True
            ):
                group['lr'] = run.base_lr[name] * run.factor(counts[name])
                counts[name] += name in active
            run.optimizer.step()
            for name in run.names:
                golden_report(
                    f'bertadam/{case}/params64/{name}',
                    run.params[name],
                    run.stored('params64', name, step),
                    1e-6,  # stored in float32
                )


@with_scalars
def test_scheduler_and_optimizer_together(golden, golden_report):
    """Our scheduler counts the optimiser's steps, not each parameter's.

    That is the release's schedule wherever every parameter has a gradient in
    every step; where some were skipped the rates differ, on purpose.
    """
    for case in case_names(golden):
        run = Run(golden, case, torch.float32)
        if run.case_meta['t_total'] < 0:
            continue  # no schedule: nothing to build
        scheduler = WarmupCosineLR(
            run.optimizer,
            warmup_ratio=run.case_meta['warmup'],
            decay=run.decay,
            total_steps=run.case_meta['t_total'],
            by_epoch=False,
        )
        counts = dict.fromkeys(run.names, 0)
        for step in range(run.meta['steps']):
            run.set_gradients(step)
            run.optimizer.step()
            for group, name in zip(
                run.optimizer.param_groups, run.names, strict=True
            ):
                rate = group['lr']
                assert rate == pytest.approx(
                    run.base_lr[name] * run.factor(step), rel=1e-12
                )
                used = golden[f'{case}/lr/{name}'][step]
                if f'{name}@{step}' not in run.skipped:
                    theirs = run.base_lr[name] * run.factor(counts[name])
                    assert used == pytest.approx(theirs, rel=1e-12)
                    counts[name] += 1
                    differs = run.factor(counts[name] - 1) != run.factor(step)
                    same = used == pytest.approx(rate, rel=1e-9)
                    assert same or differs
                if counts[name] == step + 1:  # none skipped so far
                    assert used == pytest.approx(rate, rel=1e-12)
                    golden_report(
                        f'bertadam/{case}/scheduled params/{name}',
                        run.params[name],
                        run.stored('params', name, step),
                        MODULE,
                    )
            scheduler.step()


def test_schedule_functions(golden, golden_report):
    if 'schedule/x' not in golden:
        pytest.skip('the file has no schedules')
    x = golden['schedule/x']
    for decay in ('cosine', 'linear', 'constant'):
        golden_report(
            f'bertadam/schedule/warmup_{decay}',
            np.array([schedule_factor(float(v), 0.1, decay) for v in x]),
            golden[f'schedule/warmup_{decay}'],
            1e-12,
        )


def test_half_precision_regimes(golden):
    """Half-precision moments underflow as in the release.

    The gradients of ``half_demo`` are not stored, so this checks the
    behaviour they show, not values: where the second moment vanishes, and
    that weights then move far more than those in float32.
    """
    if 'half_demo/steps' not in golden:
        pytest.skip('the file has no half_demo')
    steps = int(golden['half_demo/steps'])
    generator = torch.Generator().manual_seed(0)
    for place, scale in enumerate(golden['half_demo/grad_scale']):
        mean = torch.randn(2048, generator=generator)
        start = 0.02 * torch.randn(2048, generator=generator)
        noise = torch.randn(steps, 2048, generator=generator)
        change, zeros, moved = {}, {}, {}
        for name, dtype in [('half', torch.float16), ('float', torch.float32)]:
            param = torch.nn.Parameter(start.to(dtype))
            before = param.detach().clone().float()
            optimizer = BertAdam([param], lr=1e-7, weight_decay=0.0)
            for step in range(steps):
                grad = float(scale) * (mean + noise[step]) / math.sqrt(2)
                param.grad = grad.to(dtype)
                optimizer.step()
            delta = param.detach().float() - before
            change[name] = float(delta.square().mean().sqrt())
            moved[name] = float((delta != 0).float().mean())
            second = optimizer.state[param]['exp_avg_sq']
            zeros[name] = float((second == 0).float().mean())
            assert second.dtype == dtype
            recorded = golden[f'half_demo/{name}/fraction_zero_second_moment']
            assert zeros[name] == pytest.approx(recorded[place], abs=0.05)
            recorded = golden[f'half_demo/{name}/fraction_changed'][place]
            assert moved[name] == pytest.approx(recorded, abs=0.25)
        recorded = float(
            golden['half_demo/half/rms_change'][place]
            / golden['half_demo/float/rms_change'][place]
        )
        if recorded > 20:
            assert change['half'] > 10 * change['float']
        if recorded < 1:
            assert change['half'] < 2 * change['float']
