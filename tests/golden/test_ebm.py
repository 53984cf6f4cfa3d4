"""Energy-aware matching, against the release.

We differ on purpose in three things. By default entries the replay buffer
never received are not replayed; the golden runs replay them, so the values
are checked with ``replay_unfilled=True`` and the default by itself. The fill
count is part of the state. The cosine energy trains (the release raises, its
arrays come from the smallest repair).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eaglenet_mm.models.losses import EnergyMatchingLoss
from eaglenet_mm.models.losses.energy_matching_loss import CHUNK_BYTES
from tests.golden.cases import (
    ENERGIES,
    REDUCTIONS,
    Recorded,
    RecordedHead,
    case_names,
    gradient_scale,
    load,
    meta_of,
    part,
    place,
    stored_draws,
    tensor,
)

FILE = 'ebm.npz'
Report = Callable[..., float]
NAMES = {
    'energy_net.0': 'energy.hidden',
    'energy_net.2': 'energy.output',
    'energy_net': 'energy.transform',
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'case_name' in metafunc.fixturenames:
        metafunc.parametrize('case_name', case_names(metafunc.config, FILE))


class Draws:
    """Recorded draws in the order the loss asks for them."""

    take = RecordedHead.take

    def __init__(self, draws: list[tuple[str, np.ndarray]]) -> None:
        self.draws = draws


def build(
    arrays: dict[str, np.ndarray], meta: dict[str, Any], dtype: torch.dtype
) -> tuple[EnergyMatchingLoss, dict[str, str]]:
    loss = EnergyMatchingLoss(
        meta['dim'],
        meta['frames'],
        energy=dict(
            type=ENERGIES[meta['energy_fn']],
            reduction=REDUCTIONS[meta['energy_pooling']],
        ),
        regularization=meta['mcmc_coef_reg'],
        sampler=dict(
            num_steps=meta['mcmc_steps'],
            step_size=meta['mcmc_step_size'],
            noise_std=meta['mcmc_noise'],
            buffer_size=meta['max_buffer_vol'],
            replay_unfilled=True,
        ),
    )
    weights = part(arrays, f'w/{meta["energy_fn"]}')
    names = {
        name: f'{NAMES[name.rsplit(".", 1)[0]]}.{name.rsplit(".", 1)[1]}'
        for name in weights
    }
    assert set(names.values()) == set(dict(loss.named_parameters()))
    loss.load_state_dict(
        {names[k]: tensor(v) for k, v in weights.items()}, strict=False
    )
    return place(loss, dtype), names


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_energies(
    case_name: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Report,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = load(golden_dir, FILE)
    case = part(arrays, case_name)
    loss, _ = build(arrays, meta_of(case), dtype)
    suffix = '64' if dtype is torch.float64 else ''
    if 'energy/vid' not in case:
        pytest.skip('this case stores no energies, its calls are checked')
    video = tensor(case['energy/vid'], dtype)
    for budget in (2**30, 1):
        monkeypatch.setitem(CHUNK_BYTES, video.device.type, budget)
        got = loss.all_pairs(video, tensor(case['energy/txt'], dtype))
        golden_report(
            f'ebm/{case_name}/energy/out{suffix}',
            got,
            case[f'energy/out{suffix}'],
            1e-5,
            double=case['energy/out64'],
        )
    got = loss.energy.matching(
        tensor(case['energy_diag/vid'], dtype),
        tensor(case['energy_diag/txt'], dtype),
    )
    golden_report(
        f'ebm/{case_name}/energy_diag/out{suffix}',
        got,
        case[f'energy_diag/out{suffix}'],
        1e-5,
        double=case['energy_diag/out64'],
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_calls(
    case_name: str, dtype: torch.dtype, golden_dir: Path, golden_report: Report
) -> None:
    arrays = load(golden_dir, FILE)
    case = part(arrays, case_name)
    meta = meta_of(case)
    loss_function, names = build(arrays, meta, dtype)
    suffix = '64' if dtype is torch.float64 else ''
    parameters = dict(loss_function.named_parameters())
    sampler = loss_function.sampler
    for number in range(meta['calls']):
        call = part(case, f'call{number}')
        label = f'ebm/{case_name}/call{number}'
        video = tensor(call['vid'], dtype, grad=True)
        text = tensor(call['txt'], dtype, grad=True)
        draws = Draws(stored_draws(case, f'call{number}/noise'))
        loss_function.zero_grad()
        loss = loss_function(video, text, Recorded(draws))
        loss.backward()
        assert not draws.draws
        golden_report(
            f'{label}/loss{suffix}',
            loss,
            call[f'loss{suffix}'],
            1e-5,
            double=call['loss64'],
        )
        for side, feats in (('vid', video), ('txt', text)):
            golden_report(
                f'{label}/grad{suffix}/{side}',
                feats.grad,
                call[f'grad{suffix}/{side}'],
                1e-5,
                double=call[f'grad64/{side}'],
            )
        if suffix:
            continue
        # weights have no float64 twin: how far float32 is off, features tell
        off = max(
            float(np.abs(call[f'grad/{side}'] - call[f'grad64/{side}']).max())
            / (float(np.abs(call[f'grad/{side}']).max()) or 1.0)
            for side in ('vid', 'txt')
        )
        for theirs, ours in names.items():
            expected = call[f'grad/w/{theirs}']
            golden_report(
                f'{label}/grad/w/{theirs}',
                parameters[ours].grad,
                expected,
                max(1e-5, 10 * off),
                scale=gradient_scale(
                    expected, list(part(call, 'grad/w').values())
                ),
            )
        size = min(len(video), sampler.buffer_size)
        for theirs, buffer in (
            ('vid', sampler.replay_video),
            ('txt', sampler.replay_text),
        ):
            golden_report(
                f'{label}/replay_buffer_{theirs}',
                buffer,
                call[f'replay_buffer_{theirs}'],
                1e-5,
            )
            golden_report(
                f'{label}/{theirs}_sampled',
                buffer[:size],
                call[f'{theirs}_sampled'][:size],
                1e-5,
            )
        assert sampler.replay_fill == min(
            (number + 1) * len(video), sampler.buffer_size
        )


def test_default_replays_only_what_was_filled(
    case_name: str, golden_dir: Path
) -> None:
    """Our default keeps the chains of every energy within bounds."""
    arrays = load(golden_dir, FILE)
    case = part(arrays, case_name)
    meta = meta_of(case)
    loss_function, _ = build(arrays, meta, torch.float32)
    sampler = loss_function.sampler
    sampler.replay_unfilled = False
    asked: list[int] = []

    class Spy:
        def uniform(
            self, rows: range, shape: tuple, like: torch.Tensor
        ) -> torch.Tensor:
            return torch.rand(len(rows), *shape, device=like.device)

        def normal(
            self, rows: range, shape: tuple, like: torch.Tensor
        ) -> torch.Tensor:
            return torch.randn(len(rows), *shape, device=like.device)

        def permutation(self, size: int, like: torch.Tensor) -> torch.Tensor:
            asked.append(size)
            return torch.randperm(size, device=like.device)

    for number in range(meta['calls']):
        call = part(case, f'call{number}')
        before = int(sampler.replay_fill)
        loss = loss_function(tensor(call['vid']), tensor(call['txt']), Spy())
        assert torch.isfinite(loss)
        if number:
            assert asked.pop() == before
    if meta['energy_fn'] == 'bilinear' and meta['energy_pooling'] == 'avg':
        assert sampler.replay_video.abs().max() < 1e3
        released = case[f'call{meta["calls"] - 1}/replay_buffer_vid']
        if np.abs(released).max() > 1e6:
            assert sampler.replay_video.abs().max() < np.abs(released).max()
