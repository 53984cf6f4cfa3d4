"""Graph attention alone, against the release.

Our graphs compute of their last layer what reaches the result: the
frame-text logits, averaged over heads and frames. That is compared here with
the golden logits, and its gradient with that of ``loss_eij``. What the
release computes beyond (all last-layer logits, node output, attention
weights, an adjacency) is compared with the brute-force reference of the
tests, which the golden data thereby verify.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eaglenet_mm.models.layers import PlainGraph, RelationalGraph
from tests.golden.cases import (
    case_names,
    gradient_scale,
    load,
    meta_of,
    our_names,
    part,
    place,
    release_options,
    tensor,
)
from tests.golden.conftest import find_golden_dir, to_numpy
from tools.benchmark.reference.brute_force import gat, rgat

FILE = 'rgat.npz'
Report = Callable[..., float]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'case_name' in metafunc.fixturenames:
        names = case_names(metafunc.config, FILE)
        if metafunc.function is test_our_graph:
            # only the release's GAT class takes an adjacency, its model
            # passes none; ours has no such argument
            names = [
                name for name in names if not _has_adjacency(name, metafunc)
            ]
        metafunc.parametrize('case_name', names)


def _has_adjacency(name: str, metafunc: pytest.Metafunc) -> bool:
    with np.load(find_golden_dir(metafunc.config) / FILE) as arrays:
        return f'{name}/adj' in arrays.files


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_our_graph(
    case_name: str, dtype: torch.dtype, golden_dir: Path, golden_report: Report
) -> None:
    case = part(load(golden_dir, FILE), case_name)
    meta = meta_of(case)
    is_double = dtype is torch.float64
    tolerance, suffix = (1e-6, '64') if is_double else (1e-5, '')
    frames = meta['frames']
    options = dict(
        num_layers=meta['layers'],
        num_heads=meta['heads'],
        negative_slope=meta['slope'],
        dropout=0.0,
    )
    if meta['kind'] == 'gat':
        graph = PlainGraph(
            meta['dim'], version=2 if meta['v2'] else 1, **options
        )
    else:
        graph = RelationalGraph(meta['dim'], **options)
    names, parameters = _load_weights(graph, case, meta)
    place(graph, dtype)
    x = tensor(case['x'], dtype, grad=True)
    # each golden pair has frames of its own: P videos of one text
    video, text = x[:, :frames], x[:, frames:].unsqueeze(1)
    state = graph.prepare_frames(video, None)
    got = graph(text, None, None, state)[:, 0]  # (P, T)
    relation = 2 if meta['kind'] == 'rgat' else 0
    logits = case[f'eij{suffix}/{relation}'][:, :, :frames, frames:]
    label = f'rgat/{case_name}'
    golden_report(
        f'{label}/mean of eij{suffix}/{relation}',
        got,
        logits.mean(axis=(1, 2)),
        tolerance,
    )
    loss = got.mean()
    golden_report(
        f'{label}/loss_eij{suffix}',
        loss,
        case[f'loss_eij{suffix}'],
        tolerance,
        scale=max(float(np.abs(logits).max()), 1e-12),
    )
    if is_double:
        return  # gradients are stored in float32
    loss.backward()
    golden_report(f'{label}/grad_eij/x', x.grad, case['grad_eij/x'], tolerance)
    unused = set(case['none_grads_eij'].tolist())
    weight_gradients = list(part(case, 'grad_eij/w').values())
    for theirs, ours in names.items():
        gradient = parameters[ours].grad
        if theirs in unused:
            assert gradient is None
            continue
        expected = case[f'grad_eij/w/{theirs}']
        golden_report(
            f'{label}/grad_eij/w/{theirs}',
            gradient.reshape(expected.shape),
            expected,
            tolerance,
            scale=gradient_scale(expected, weight_gradients),
        )
    compared = {n for n in part(case, 'w') if n not in unused}
    assert compared <= set(names), compared - set(names)


def _load_weights(
    graph: torch.nn.Module, case: dict[str, np.ndarray], meta: dict
) -> tuple[dict[str, str], dict[str, Tensor]]:
    options = release_options(
        dict(
            dim=meta['dim'],
            max_frames=meta['frames'],
            gnn_type=meta['kind'],
            gnn_num_layers=meta['layers'],
            framepe=0,
            loss_fn='sig',
            energy_fn='mlp',
            max_buffer_vol=1,
        )
    )
    weights = part(case, 'w')
    names = {
        theirs.removeprefix('gnn.'): ours.removeprefix('graph.')
        for theirs, ours in our_names(
            [f'gnn.{name}' for name in weights], options
        ).items()
    }
    parameters = dict(graph.named_parameters())
    assert set(names.values()) == set(parameters)
    state = {
        ours: tensor(weights[theirs]).reshape(parameters[ours].shape)
        for theirs, ours in names.items()
    }
    graph.load_state_dict(state)
    return names, parameters


@pytest.mark.nightly
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_brute_force_reference(
    case_name: str, dtype: torch.dtype, golden_dir: Path, golden_report: Report
) -> None:
    case = part(load(golden_dir, FILE), case_name)
    meta = meta_of(case)
    is_double = dtype is torch.float64
    tolerance, suffix = (1e-6, '64') if is_double else (1e-5, '')
    weights = {
        name: tensor(weight, dtype, grad=True)
        for name, weight in part(case, 'w').items()
    }
    x = tensor(case['x'], dtype, grad=True)
    label, frames = f'reference/rgat/{case_name}', meta['frames']
    if meta['kind'] == 'rgat':
        out, logits = rgat(
            x, weights, frames, meta['layers'], meta['heads'], meta['slope']
        )
    else:
        out, last, attention = gat(
            x,
            weights,
            meta['layers'],
            meta['heads'],
            meta['slope'],
            2 if meta['v2'] else 1,
            tensor(case['adj'], dtype) if meta['adj'] else None,
        )
        logits = [last]
        golden_report(
            f'{label}/att{suffix}', attention, case[f'att{suffix}'], tolerance
        )
    golden_report(f'{label}/out{suffix}', out, case[f'out{suffix}'], tolerance)
    for relation, got in enumerate(logits):
        expected = case[f'eij{suffix}/{relation}']
        masked = expected < -1e17
        values = to_numpy(got)
        assert ((values < -1e17) == masked).all()
        golden_report(
            f'{label}/eij{suffix}/{relation}',
            np.where(masked, 0, values),
            np.where(masked, 0, expected),
            tolerance,
        )
    losses = {
        'eij': logits[-1][:, :, :frames, frames:].mean(),
        'out': (out * tensor(case['cotangent'], dtype)).sum(),
    }
    for kind, loss in losses.items():
        scale = out if kind == 'out' else logits[-1][:, :, :frames, frames:]
        golden_report(
            f'{label}/loss_{kind}{suffix}',
            loss,
            case[f'loss_{kind}{suffix}'],
            tolerance,
            scale=float(scale.detach().abs().max()),
        )
        if is_double:
            (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
            key = f'grad_{kind}64/x'
            if key in case:
                golden_report(f'{label}/{key}', gradient, case[key], tolerance)
            continue
        inputs = {'x': x, **{f'w/{k}': v for k, v in weights.items()}}
        gradients = torch.autograd.grad(
            loss, list(inputs.values()), retain_graph=True, allow_unused=True
        )
        unused = set(case[f'none_grads_{kind}'].tolist())
        for name, gradient in zip(inputs, gradients, strict=True):
            if name.removeprefix('w/') in unused:
                assert gradient is None or not gradient.any()
                continue
            golden_report(
                f'{label}/grad_{kind}/{name}',
                gradient,
                case[f'grad_{kind}/{name}'],
                tolerance,
                scale=gradient_scale(
                    case[f'grad_{kind}/{name}'],
                    list(part(case, f'grad_{kind}').values()),
                ),
            )
