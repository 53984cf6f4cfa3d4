"""The brute-force training objective of the tests, against the release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden.cases import (
    REDUCTIONS,
    Recorded,
    case_names,
    load,
    meta_of,
    part,
    place,
    stored_draws,
    tensor,
)
from tests.golden.conftest import find_golden_dir, to_numpy
from tests.golden.rules import gradient_summary
from tests.golden.test_ebm import Draws
from tests.golden.test_frl_head import LOSS_NAMES, Case
from tools.benchmark.reference.brute_force import log_radius, pool_frames
from tools.benchmark.reference.brute_force_energy import BruteForceEnergy
from tools.benchmark.reference.brute_force_training import (
    BruteForceObjective,
    info_nce_loss,
    sigmoid_loss,
)

DOUBLE = torch.float64
# against the release's float64, and where there is only its float32
TOLERANCE = 1e-7
TOLERANCE_32 = 1e-5
Report = Callable[..., float]
FILES = {
    'head_case': 'frl_head.npz',
    'energy_case': 'ebm.npz',
    'text_case': 'stochastic_text.npz',
    'pooling_case': 'pooling.npz',
    'loss_case': 'losses.npz',
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, file in FILES.items():
        if fixture in metafunc.fixturenames:
            names = case_names(metafunc.config, file)
            if fixture == 'loss_case':
                names = matrices(find_golden_dir(metafunc.config) / file)
            metafunc.parametrize(fixture, names)


def matrices(path: Path) -> list[str]:
    """Cases with scores; those of the cross entropy have no ``meta``."""
    if not path.is_file():
        return []
    with np.load(path) as arrays:
        return [
            name.removesuffix('/sim')
            for name in arrays.files
            if name.count('/') == 1 and name.endswith('/sim')
        ]


def test_training(
    head_case: str, golden_dir: Path, golden_report: Report
) -> None:
    """Losses, gradients and replay of two successive calls."""
    case = Case(golden_dir, head_case, DOUBLE)
    objective = BruteForceObjective(case.head.train())
    for call in ('train', 'train_call1'):
        if f'{call}/total' in case.arrays:
            _check_call(case, objective, call, golden_report)


def _check_call(
    case: Case, objective: BruteForceObjective, call: str, report: Report
) -> None:
    arrays, meta = case.arrays, case.meta
    label = f'reference/{case.name}/{call}'
    text = tensor(arrays['train/text'], DOUBLE, grad=True)
    frames = tensor(arrays['train/video'], DOUBLE, grad=True)
    draws = Draws(case.draws(call))
    noise = tensor(draws.draws.pop(0)[1], DOUBLE)
    losses = objective(text, frames, noise, Recorded(draws))
    assert not draws.draws, 'recorded draws are left over'
    total = sum(losses.values())
    objective.zero_grad()
    total.backward()

    def compare(name: str, got: Tensor) -> None:
        report(f'{label}/{name}', got, arrays[f'{call}/{name}'], TOLERANCE)

    compare('total64', total)
    factors = {
        'sim_loss2': meta['support_loss_weight'],
        'eam_loss': meta['eam_loss_weight'],
        'eam_support_loss': meta['eam_support_loss_weight'],
    }
    for theirs, ours in LOSS_NAMES.items():
        assert (ours in losses) == (f'{call}/{theirs}64' in arrays), theirs
        if ours in losses:
            compare(f'{theirs}64', losses[ours] / factors.get(theirs, 1.0))
    compare('grad64/text', text.grad)
    compare('grad64/video', frames.grad)
    _check_gradients(case, objective, call, report)
    replays = {} if objective.energy is None else dict(vid='video', txt='text')
    for theirs, ours in replays.items():
        expected = arrays[f'{call}/replay_buffer_{theirs}']
        got = getattr(objective.energy, f'replay_{ours}')[: len(expected)]
        name = f'{label}/replay_buffer_{theirs}'
        report(name, got, expected, TOLERANCE_32)


def _check_gradients(
    case: Case, objective: BruteForceObjective, call: str, report: Report
) -> None:
    arrays, label = case.arrays, f'reference/{case.name}/{call}'
    names = arrays[f'{call}/grad_names'].tolist()
    expected = dict(zip(names, arrays[f'{call}/grad_summary64'], strict=True))
    largest = max(row[0] for row in expected.values())
    with_gradient = set()
    for name, parameter in objective.weights.items():
        if parameter.grad is None:
            continue
        with_gradient.add(name)
        gradient = to_numpy(parameter.grad)
        gradient = gradient.reshape(case.weights[name].shape)
        got = gradient_summary(name, gradient, case.meta['seed'])
        # a gradient that is zero but for rounding has no scale of its own
        vanishes = expected[name][0] <= 1e-9 * largest
        norm = largest if vanishes else expected[name][0]
        for value, golden, scale in zip(
            got,
            expected[name],
            norm * np.array([1, np.sqrt(gradient.size), 1]),
            strict=True,
        ):
            report(f'{label}/summary', value, golden, TOLERANCE, scale)
        key = f'{call}/grad/w/{name}'
        if key in arrays:
            scale = largest if vanishes else None
            report(
                f'reference/{case.name}/{key}', gradient, arrays[key],
                TOLERANCE_32, scale=scale,
            )  # fmt: skip
    assert with_gradient == set(names), set(names) ^ with_gradient


def test_energy_loss(
    energy_case: str, golden_dir: Path, golden_report: Report
) -> None:
    arrays = load(golden_dir, FILES['energy_case'])
    case = part(arrays, energy_case)
    meta = meta_of(case)
    weights = {
        f'ebm.{name}': tensor(value, DOUBLE, grad=True)
        for name, value in part(arrays, f'w/{meta["energy_fn"]}').items()
    }
    energy = BruteForceEnergy(
        meta['frames'],
        meta['dim'],
        meta['energy_fn'],
        REDUCTIONS[meta['energy_pooling']],
        regularization=meta['mcmc_coef_reg'],
        num_steps=meta['mcmc_steps'],
        step_size=meta['mcmc_step_size'],
        noise_std=meta['mcmc_noise'],
        buffer_size=meta['max_buffer_vol'],
    )
    energy = place(energy, DOUBLE)
    label = f'reference/{energy_case}'

    def inputs(kind: str, grad: bool = False) -> tuple[Tensor, Tensor]:
        return tuple(
            tensor(case[f'{kind}/{side}'], DOUBLE, grad)
            for side in ('vid', 'txt')
        )

    for kind, function in (
        ('energy', energy.all_pairs),
        ('energy_diag', energy.matching),
    ):
        if f'{kind}/vid' in case:
            golden_report(
                f'{label}/{kind}/out64',
                function(*inputs(kind), weights),
                case[f'{kind}/out64'],
                TOLERANCE,
            )
    for number in range(meta['calls']):
        call = f'call{number}'
        sides = inputs(call, grad=True)
        draws = Draws(stored_draws(case, f'{call}/noise'))
        for weight in weights.values():
            weight.grad = None
        loss = energy(*sides, weights, Recorded(draws))
        loss.backward()
        assert not draws.draws
        golden_report(
            f'{label}/{call}/loss64', loss, case[f'{call}/loss64'], TOLERANCE
        )
        for side, feats in zip(('vid', 'txt'), sides, strict=True):
            name = f'{call}/grad64/{side}'
            golden_report(f'{label}/{name}', feats.grad, case[name], TOLERANCE)
        for name, weight in weights.items():
            key = f'{call}/grad/w/{name.removeprefix("ebm.")}'
            golden_report(
                f'{label}/{key}', weight.grad, case[key], TOLERANCE_32
            )
        for theirs, ours in (('vid', 'video'), ('txt', 'text')):
            name = f'{call}/replay_buffer_{theirs}'
            got = getattr(energy, f'replay_{ours}')
            golden_report(f'{label}/{name}', got, case[name], TOLERANCE_32)


def test_losses_on_scores(
    loss_case: str, golden_dir: Path, golden_report: Report
) -> None:
    case = part(load(golden_dir, FILES['loss_case']), loss_case)
    label = f'reference/{loss_case}'
    scores = tensor(case['sim'], DOUBLE, grad=True)
    if 'sym_loss64' in case:
        loss = info_nce_loss(scores, scores.new_zeros(()))
        names = {'loss': 'sym_loss64', 'sim': 'sym_grad64'}
        inputs = {'sim': scores}
    else:
        meta = meta_of(case)
        inputs = {
            'sim': scores,
            'temp_prior': scores.new_tensor([meta['temperature']]),
            'bias': scores.new_tensor([meta['bias']]),
        }
        for name in ('temp_prior', 'bias'):
            if f'w/{name}' in case:
                inputs[name] = tensor(case[f'w/{name}'], DOUBLE, grad=True)
        loss = sigmoid_loss(*inputs.values())
        names = {name: f'stable64/grad_{name}' for name in inputs}
        names['loss'] = 'stable64/loss'
    loss.backward()
    golden_report(f'{label}/loss', loss, case[names['loss']], TOLERANCE)
    for name, value in inputs.items():
        if value.grad is not None:
            expected = case[names[name]].reshape(value.shape)
            golden_report(f'{label}/{name}', value.grad, expected, TOLERANCE)


def test_radius(
    text_case: str, golden_dir: Path, golden_report: Report
) -> None:
    """Also where one zero frame leaves the batch as it is."""
    case = part(load(golden_dir, FILES['text_case']), text_case)
    text, video = (
        tensor(case[side], DOUBLE, grad=True) for side in ('text', 'video')
    )
    weights = {
        f'stochastic.{name}': tensor(value, DOUBLE)
        for name, value in part(case, 'w').items()
    }
    radius = log_radius(text, video, weights)
    candidates = text + tensor(case['sigma'], DOUBLE) * radius.exp()
    loss = (candidates * tensor(case['cotangent_sto'], DOUBLE)).sum()
    loss = loss + (radius * tensor(case['cotangent_logvar'], DOUBLE)).sum()
    loss.backward()
    values = {'log_var64': radius}
    _compare(text_case, case, values, text, video, golden_report)


def test_pooling(
    pooling_case: str, golden_dir: Path, golden_report: Report
) -> None:
    case = part(load(golden_dir, FILES['pooling_case']), pooling_case)
    text, video = (
        tensor(case[side], DOUBLE, grad=True) for side in ('text', 'video')
    )
    weights = {
        f'pool_frames.{name}': tensor(value, DOUBLE)
        for name, value in part(case, 'w').items()
    }
    out = pool_frames(text, video, weights, meta_of(case)['heads'])
    (out * tensor(case['cotangent'], DOUBLE)).sum().backward()
    values = {'out64': out}
    _compare(pooling_case, case, values, text, video, golden_report)


def _compare(
    name: str,
    case: dict[str, np.ndarray],
    values: dict[str, Tensor],
    text: Tensor,
    video: Tensor,
    report: Report,
) -> None:
    gradients = {'grad64/text': text.grad, 'grad64/video': video.grad}
    for key, got in (values | gradients).items():
        report(f'reference/{name}/{key}', got, case[key], TOLERANCE)
