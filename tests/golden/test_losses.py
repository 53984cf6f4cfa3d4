"""Losses on score matrices, against the release.

We differ on purpose where the release's ``log(sigmoid(x))`` is infinite:
there the stable values, computed in float64, are what we must give.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eaglenet_mm.models.losses import InfoNCELoss, PairwiseSigmoidLoss
from tests.golden.cases import (
    case_names,
    load,
    meta_of,
    part,
    place,
    tensor,
)
from tests.golden.conftest import find_golden_dir, to_numpy

FILE = 'losses.npz'
Report = Callable[..., float]
PARAMETERS = {'temp_prior': 'log_scale', 'bias': 'bias'}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'sigmoid_case' in metafunc.fixturenames:
        names = [
            name
            for name in case_names(metafunc.config, FILE)
            if 'temperature'
            in meta_of(
                part(load(find_golden_dir(metafunc.config), FILE), name)
            )
        ]
        metafunc.parametrize('sigmoid_case', names)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_sigmoid_loss(
    sigmoid_case: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Report,
) -> None:
    case = part(load(golden_dir, FILE), sigmoid_case)
    meta = meta_of(case)
    loss_function = PairwiseSigmoidLoss(
        meta['temperature'], meta['bias'], learnable=not meta['fixed']
    )
    for theirs, ours in PARAMETERS.items():
        if f'w/{theirs}' in case:
            parameter = getattr(loss_function, ours)
            parameter.data.copy_(tensor(case[f'w/{theirs}']))
    place(loss_function, dtype)
    scores = tensor(case['sim'], dtype, grad=True)
    loss = loss_function(scores)
    loss.backward()
    tolerance = 1e-5
    precision = 'float64' if dtype is torch.float64 else 'float32'
    label = f'losses/{sigmoid_case}/stable64 by {precision}'
    golden_report(f'{label}/loss', loss, case['stable64/loss'], tolerance)
    golden_report(
        f'{label}/grad_sim', scores.grad, case['stable64/grad_sim'], tolerance
    )
    if np.isfinite(case['loss']):
        golden_report(f'losses/{sigmoid_case}/loss', loss, case['loss'], 1e-5)
        golden_report(
            f'losses/{sigmoid_case}/grad/sim',
            scores.grad,
            case['grad/sim'],
            1e-5,
        )
    else:
        assert torch.isfinite(loss)
        assert torch.isfinite(scores.grad).all()
        finite = np.isfinite(case['grad/sim'])
        golden_report(
            f'losses/{sigmoid_case}/finite grad/sim',
            to_numpy(scores.grad)[finite],
            case['grad/sim'][finite],
            1e-5,
        )
    for theirs, ours in PARAMETERS.items():
        if meta['fixed']:
            assert getattr(loss_function, ours).grad is None
            continue
        for source in (f'grad/{theirs}', f'stable64/grad_{theirs}'):
            if np.isfinite(case[source]).all():
                golden_report(
                    f'losses/{sigmoid_case}/{source}',
                    getattr(loss_function, ours).grad.reshape(
                        case[source].shape
                    ),
                    case[source],
                    1e-5,
                )


def test_log_sigmoid_table(golden_dir: Path, golden_report: Report) -> None:
    """Ours agrees wherever the release's float32 form is accurate."""
    arrays = load(golden_dir, FILE)
    x = tensor(arrays['table/x'], grad=True)
    ours = -F.logsigmoid(x)
    ours.sum().backward()
    theirs, slope = arrays['table/nll'], arrays['table/grad']
    finite = np.isfinite(theirs) & np.isfinite(slope)
    assert torch.isfinite(ours).all()
    assert torch.isfinite(x.grad).all()
    golden_report(
        'losses/table/nll', to_numpy(ours)[finite], theirs[finite], 1e-5
    )
    golden_report(
        'losses/table/grad', to_numpy(x.grad)[finite], slope[finite], 1e-5
    )
    # beyond, -log sigmoid(x) is -x to float32
    below = ~finite
    np.testing.assert_allclose(
        to_numpy(ours)[below], -arrays['table/x'][below], rtol=1e-6
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cross_entropy(
    dtype: torch.dtype, golden_dir: Path, golden_report: Report
) -> None:
    arrays = load(golden_dir, FILE)
    names = sorted(
        {key.split('/')[0] for key in arrays if key.endswith('/sym_loss')}
    )
    if not names:
        pytest.skip('the file has no case of the cross entropy')
    for name in names:
        case = part(arrays, name)
        loss_function = place(InfoNCELoss(init_scale=1.0), dtype)
        scores = tensor(case['sim'], dtype, grad=True)
        loss = loss_function(scores)
        loss.backward()
        suffix = '64' if dtype is torch.float64 else ''
        for key, got in (('sym_loss', loss), ('sym_grad', scores.grad)):
            golden_report(
                f'losses/{name}/{key}{suffix}',
                got,
                case[f'{key}{suffix}'],
                1e-5,
                double=case[f'{key}64'],
            )
        # one direction: the symmetric loss of rows whose columns are settled
        rows = tensor(case['sim'], dtype, grad=True)
        target = tensor(np.arange(len(rows)))
        one_way = F.cross_entropy(rows, target)
        other = F.cross_entropy(rows.T, target)
        ours = 2 * loss_function(rows) - other
        (gradient,) = torch.autograd.grad(one_way, rows)
        for key, got in (('loss', ours), ('grad', gradient)):
            golden_report(
                f'losses/{name}/{key}{suffix}',
                got,
                case[f'{key}{suffix}'],
                1e-5,
                double=case[f'{key}64'],
            )
