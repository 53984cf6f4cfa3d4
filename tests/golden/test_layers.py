"""Stochastic text and frame pooling, against the release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eaglenet_mm.models.layers import FramePooling, StochasticText
from tests.golden.cases import (
    case_names,
    load,
    meta_of,
    part,
    place,
    tensor,
)

Report = Callable[..., float]
POOLING_NAMES = {
    'cross_attn.q_proj': 'query',
    'cross_attn.k_proj': 'key',
    'cross_attn.v_proj': 'value',
    'cross_attn.out_proj': 'output',
    'linear_proj': 'linear',
    'layer_norm1': 'norm1',
    'layer_norm2': 'norm2',
    'layer_norm3': 'norm3',
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, file in (
        ('text_case', 'stochastic_text.npz'),
        ('pooling_case', 'pooling.npz'),
    ):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, case_names(metafunc.config, file))


def precision(dtype: torch.dtype) -> tuple[float, str]:
    return (1e-6, '64') if dtype is torch.float64 else (1e-5, '')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_stochastic_text(
    text_case: str, dtype: torch.dtype, golden_dir: Path, golden_report: Report
) -> None:
    case = part(load(golden_dir, 'stochastic_text.npz'), text_case)
    meta = meta_of(case)
    tolerance, suffix = precision(dtype)
    layer = StochasticText(meta['dim'], meta['frames'])
    prefix = 'std_branch.linear_proj'
    layer.radius.load_state_dict(
        {
            'weight': tensor(case[f'w/{prefix}.weight']),
            'bias': tensor(case[f'w/{prefix}.bias']),
        }
    )
    place(layer, dtype)
    text = tensor(case['text'], dtype, grad=True)
    video = tensor(case['video'], dtype, grad=True)
    # the release leaves all frames as they are if one of them is zero
    unit = layer.unit_frames(video, keep_if_zero=True)
    log_radius = torch.stack(
        [
            layer(t[None], u[None])[0, 0]
            for t, u in zip(text, unit, strict=True)
        ]
    )
    candidates = text + tensor(case['sigma'], dtype) * log_radius.exp()
    loss = (candidates * tensor(case['cotangent_sto'], dtype)).sum() + (
        log_radius * tensor(case['cotangent_logvar'], dtype)
    ).sum()
    label = f'stochastic_text/{text_case}'
    golden_report(
        f'{label}/log_var{suffix}',
        log_radius,
        case[f'log_var{suffix}'],
        tolerance,
    )
    golden_report(
        f'{label}/text_sto{suffix}',
        candidates,
        case[f'text_sto{suffix}'],
        tolerance,
    )
    if f'loss{suffix}' in case:
        golden_report(
            f'{label}/loss{suffix}', loss, case[f'loss{suffix}'], tolerance
        )
    loss.backward()
    gradients = {
        'text': text.grad,
        'video': video.grad,
        f'w/{prefix}.weight': layer.radius.weight.grad,
        f'w/{prefix}.bias': layer.radius.bias.grad,
    }
    for name, gradient in gradients.items():
        if f'grad{suffix}/{name}' in case:
            golden_report(
                f'{label}/grad{suffix}/{name}',
                gradient,
                case[f'grad{suffix}/{name}'],
                tolerance,
            )


def test_stochastic_text_of_a_zero_frame_differs_on_purpose(
    text_case: str, golden_dir: Path
) -> None:
    """By default a zero frame changes no other frame of the batch."""
    case = part(load(golden_dir, 'stochastic_text.npz'), text_case)
    video = tensor(case['video'])
    unit = StochasticText.unit_frames(video)
    real = video.norm(dim=-1) > 0
    torch.testing.assert_close(
        unit.norm(dim=-1)[real], unit.new_ones(int(real.sum()))
    )
    assert not unit[~real].any()


def test_initial_radius(golden_dir: Path, golden_report: Report) -> None:
    init = part(load(golden_dir, 'stochastic_text.npz'), 'init')
    for name, expected in init.items():
        leaf = name.split('.')[-1]
        weight = init['std_branch.linear_proj.weight']
        layer = StochasticText(*weight.shape)
        golden_report(
            f'stochastic_text/init/{name}',
            getattr(layer.radius, leaf),
            expected,
            0.0,
        )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_frame_pooling(
    pooling_case: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Report,
) -> None:
    case = part(load(golden_dir, 'pooling.npz'), pooling_case)
    meta = meta_of(case)
    tolerance, suffix = precision(dtype)
    layer = FramePooling(meta['dim'], meta['heads'], dropout=0.0)
    names = {
        f'{theirs}.{leaf}': f'{ours}.{leaf}'
        for theirs, ours in POOLING_NAMES.items()
        for leaf in ('weight', 'bias')
    }
    weights = part(case, 'w')
    layer.load_state_dict({names[k]: tensor(v) for k, v in weights.items()})
    place(layer, dtype)
    text = tensor(case['text'], dtype, grad=True)
    video = tensor(case['video'], dtype, grad=True)
    own = text.transpose(0, 1) if text.dim() == 3 else text
    out = layer(own, layer.prepare_frames(video))
    label = f'pooling/{pooling_case}'
    golden_report(f'{label}/out{suffix}', out, case[f'out{suffix}'], tolerance)
    loss = (out * tensor(case['cotangent'], dtype)).sum()
    if f'loss{suffix}' in case:
        scale = float(out.detach().abs().max())
        golden_report(
            f'{label}/loss{suffix}',
            loss,
            case[f'loss{suffix}'],
            tolerance,
            scale=scale,
        )
    loss.backward()
    parameters = dict(layer.named_parameters())
    gradients = {'text': text.grad, 'video': video.grad} | {
        f'w/{name}': parameters[names[name]].grad for name in weights
    }
    key_scale = float(parameters['key.weight'].grad.abs().max())
    for name, gradient in gradients.items():
        if f'grad{suffix}/{name}' not in case:
            continue
        golden_report(
            f'{label}/grad{suffix}/{name}',
            gradient,
            case[f'grad{suffix}/{name}'],
            tolerance,
            # the softmax does not see the bias of the keys
            scale=key_scale if name.endswith('k_proj.bias') else None,
        )


def test_initial_pooling(golden_dir: Path, golden_report: Report) -> None:
    init = part(load(golden_dir, 'pooling.npz'), 'init')
    if not init:
        pytest.skip('the file has no initial values')
    weight = init['cross_attn.q_proj.weight']
    state = FramePooling(len(weight)).state_dict()
    for name, expected in init.items():
        module, leaf = name.rsplit('.', 1)
        golden_report(
            f'pooling/init/{name}',
            state[f'{POOLING_NAMES[module]}.{leaf}'],
            expected,
            0.0,
        )
