"""The complete model from token ids and pixels, against the release.

Weights go through the converter, as a published checkpoint would.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from eaglenet_mm.engine.schedulers import WarmupCosineLR
from eaglenet_mm.models.converters import convert_eaglenet_release
from eaglenet_mm.models.encoders import CLIPTextEncoder, CLIPVideoEncoder
from eaglenet_mm.models.retrievers import TextVideoRetriever
from tests.golden.cases import (
    RecordedHead,
    build_head,
    load,
    meta_of,
    part,
    place,
    stored_draws,
    tensor,
)
from tests.golden.conftest import find_golden_dir, to_numpy
from tests.golden.rules import gradient_summary, rule_noise
from tests.golden.test_clip_features import (
    pixels_of,
    release_weights,
    text_arch,
    vision_arch,
)

FILE = 'full_model.npz'
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
TERMS = {
    'sim_loss1': 'loss_match',
    'sim_loss2': 'loss_support',
    'eam_loss': 'loss_energy',
    'eam_support_loss': 'loss_energy_support',
}
Report = Callable[..., float]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'case_name' not in metafunc.fixturenames:
        return
    path = find_golden_dir(metafunc.config) / FILE
    names: list[str] = []
    if path.is_file():
        with np.load(path) as arrays:
            names = [
                key.split('/')[0]
                for key in arrays.files
                if re.fullmatch(r'[^/]+/state_names', key)
            ]
    metafunc.parametrize('case_name', names)


@pytest.fixture(params=[torch.float32, torch.float64], ids=['f32', 'f64'])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


class Model:
    """Our retriever with the weights of a case."""

    def __init__(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        arrays = load(folder, FILE)
        top = meta_of(arrays)
        self.name, self.dtype = name, dtype
        self.case = part(arrays, name)
        self.meta = {**top, **meta_of(self.case)}
        # then temperature and bias are constants, of no checkpoint
        self.is_fixed = bool(self.meta.get('fix_sig_loss_param', 0))
        self.is_clip = self.meta['loss_fn'] == 'clip'
        width = self.case['eval/text_feat'].shape[-1]
        head = build_head({**self.meta, 'dim': width})
        model = TextVideoRetriever.__new__(TextVideoRetriever)
        torch.nn.Module.__init__(model)
        model.text_encoder = CLIPTextEncoder(
            text_arch(top, width),
            max_words=top['max_words'],
            frozen='release',
        )
        model.video_encoder = CLIPVideoEncoder(
            vision_arch(top, width),
            shift_layers=top['patch_shift_layers'],
            frozen='release',
        )
        model.head = head
        model.encoder_micro_batch = None
        self.weights = release_weights(arrays, name, top['seed'])
        ours, report = convert_eaglenet_release(
            self.weights,
            max_words=top['max_words'],
            num_graph_layers=self.meta['gnn_num_layers'],
            loss=self.meta['loss_fn'],
        )
        result = model.load_state_dict(ours, strict=False)
        assert not result.unexpected_keys
        assert not [
            key
            for key in result.missing_keys
            if not key.endswith('replay_fill')
            and not (self.is_fixed and 'loss_match' in key)
        ]
        self.model = place(model, dtype)
        self.head: RecordedHead = head
        self.theirs = {
            ours: theirs for theirs, ours in report.converted.items()
        }
        count = len(arrays['nvalid'])
        self.inputs = dict(
            pixels=pixels_of(arrays, top).to(dtype),
            frame_mask=tensor(arrays['video_mask'][:, 0] > 0),
            token_ids=tensor(arrays['input_ids'][:, 0]),
            caption_counts=tensor(np.ones(count, np.int64)),
        )

    @property
    def suffix(self) -> str:
        return '64' if self.dtype is torch.float64 else ''

    def summaries(
        self, values: dict[str, Tensor | None]
    ) -> dict[str, tuple[np.ndarray, int]]:
        """Summaries under the release's names, with the number of entries.

        Where our tensor is a slice of the release's (positions beyond
        ``max_words``), the rest is zero in both.
        """
        summaries = {}
        for ours, value in values.items():
            if self.is_fixed and 'loss_match' in ours:
                assert value is None or not value.any()
                continue
            theirs = self.theirs[ours]
            shape = tuple(self.weights[theirs].shape)
            full = np.zeros(shape)
            if value is not None:
                array = to_numpy(value)
                if array.shape != shape and array.shape[1:] == shape[1:]:
                    full[: len(array)] = array
                else:
                    full = array.reshape(shape)
            summaries[theirs] = (
                gradient_summary(theirs, full, self.meta['seed']),
                full.size,
            )
        return summaries


def compare_summaries(
    got: dict[str, tuple[np.ndarray, int]],
    names: list[str],
    expected: np.ndarray,
    exact: np.ndarray,
    label: str,
    tolerance: float,
    report: Report,
    absent: tuple[str, ...] = (),
) -> None:
    largest = float(exact[:, 0].max())
    for name, row, exact_row in zip(names, expected, exact, strict=True):
        if name not in got:
            assert not exact_row.any() or name in absent, name
            continue
        summary, size = got[name]
        vanishes = exact_row[0] <= 1e-9 * largest
        norm = largest if vanishes else float(row[0])
        scales = (norm, norm * np.sqrt(size), norm)
        for value, golden, in_double, scale in zip(
            summary, row, exact_row, scales, strict=True
        ):
            report(
                label, value, golden, tolerance, scale=scale, double=in_double
            )


def test_evaluation(
    case_name: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Report,
) -> None:
    model = Model(golden_dir, case_name, dtype)
    model.head.feed(stored_draws(model.case, 'eval/noise'))
    with torch.no_grad():
        text, video = model.model.eval()(model.inputs, mode='tensor')
        scores = model.head(text, video)
    for name, got in (
        ('text_feat', text.embeds),
        ('video_feat', video.frames),
        ('logits', scores),
    ):
        key = f'eval/{name}{model.suffix}'
        golden_report(
            f'full_model/{case_name}/{key}',
            got,
            model.case[key],
            TOLERANCE[dtype],
        )


def test_training(
    case_name: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Report,
) -> None:
    model = Model(golden_dir, case_name, dtype)
    for parameter in model.model.parameters():
        parameter.requires_grad_(True)  # the golden run froze nothing here
    if model.is_fixed:
        model.head.loss_match.requires_grad_(False)
    # frozen parts stay so through train(), which a training forward calls;
    # without dropout the mode makes no difference to the encoders
    model.head.train()
    case, suffix, tolerance = model.case, model.suffix, TOLERANCE[dtype]
    label = f'full_model/{case_name}/train'
    matrices: list[Tensor] = []
    model.head.loss_match.register_forward_hook(
        lambda module, inputs, _out: matrices.append(
            module.logits(inputs[0]) if model.is_clip else inputs[0]
        )
    )
    model.head.feed(stored_draws(case, 'train/noise'))
    losses = model.model(model.inputs, mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    golden_report(
        f'{label}/total{suffix}',
        total,
        case[f'train/total{suffix}'],
        tolerance,
    )
    for number, matrix in enumerate(matrices, start=1):
        key = f'logits{number}{suffix}'
        golden_report(
            f'{label}/{key}', matrix, case[f'train/{key}'], tolerance
        )
    factors = dict(
        sim_loss2=model.meta['support_loss_weight'],
        eam_loss=model.meta['eam_loss_weight'],
        eam_support_loss=model.meta['eam_support_loss_weight'],
    )
    for theirs, ours in TERMS.items():
        key = f'train/{theirs}{suffix}'
        assert (key in case) == (ours in losses)
        if key in case:
            value = losses[ours] / factors.get(theirs, 1.0)
            golden_report(
                f'{label}/{theirs}{suffix}', value, case[key], tolerance
            )
    gradients = {
        name: parameter.grad
        for name, parameter in model.model.named_parameters()
    }
    unused = set(case['train/unused_parameters'].tolist())
    for ours, gradient in gradients.items():
        if model.theirs.get(ours) in unused:
            assert gradient is None or not gradient.any(), ours
    compare_summaries(
        model.summaries(gradients),
        case['train/grad_names'].tolist(),
        case[f'train/grad_summary{suffix}'],
        case['train/grad_summary64'],
        f'{label}/grad_summary{suffix}',
        tolerance,
        golden_report,
    )


def test_steps(
    case_name: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Report,
) -> None:
    """Several updates: clipping, BertAdam, schedule, freezing, replay."""
    model = Model(golden_dir, case_name, dtype)
    case, suffix = model.case, model.suffix
    steps = part(case, 'steps')
    if not steps:
        pytest.skip('the case has no optimiser steps')
    meta = meta_of(steps)
    retriever = model.model.train()
    wrapper = build_optim_wrapper(
        retriever, _optimizer_config(meta, model.is_clip)
    )
    _check_groups(model, wrapper, steps, meta)
    scheduler = WarmupCosineLR(
        wrapper,
        warmup_ratio=meta['warmup'],
        total_steps=meta['t_total'],
        by_epoch=False,
    )
    before = {
        name: value.detach().clone()
        for name, value in retriever.named_parameters()
    }
    model.head.feed(_step_draws(model, steps))
    for expected in steps[f'loss{suffix}']:
        losses = retriever(model.inputs, mode='loss')
        total, _ = retriever_losses(losses)
        golden_report(
            f'full_model/{case_name}/steps/loss{suffix}',
            total,
            expected,
            TOLERANCE[dtype],
        )
        wrapper.update_params(total)
        scheduler.step()
        if model.is_clip:
            model.head.loss_match.clamp_()
    assert not model.head.draws
    deltas = {
        name: value.detach() - before[name]
        for name, value in retriever.named_parameters()
    }
    frozen = set(steps['frozen'].tolist())
    for ours, delta in deltas.items():
        if model.theirs.get(ours) in frozen:
            assert not delta.any(), ours
    if not model.is_clip:
        # the one parameter we do without: the release clamps it and no more
        scale = float(model.weights['clip.logit_scale'])
        place = steps['param_names'].tolist().index('clip.logit_scale')
        golden_report(
            f'full_model/{case_name}/steps/clamp of clip.logit_scale',
            max(scale - np.log(100), 0.0),
            steps['delta_summary64'][place][0],
            1e-5,
            scale=scale,
        )
    compare_summaries(
        model.summaries(deltas),
        steps['param_names'].tolist(),
        steps['delta_summary64'] if suffix else steps['delta_summary'],
        steps['delta_summary64'],
        f'full_model/{case_name}/steps/delta_summary{suffix}',
        1e-5 if suffix else 1e-4,
        golden_report,
        absent=('clip.logit_scale',),
    )


def retriever_losses(losses: dict[str, Tensor]) -> tuple[Tensor, Any]:
    """Add losses as MMEngine does."""
    return TextVideoRetriever.parse_losses(None, losses)


def _optimizer_config(meta: dict[str, Any], is_clip: bool) -> dict:
    """The recipe as configs write it, with the numbers of the case.

    The scale of InfoNCE is CLIP's in the release, and has CLIP's rate.
    """
    clip = r'^(text|video)_encoder\.'
    if is_clip:
        clip += r'|^head\.loss_match\.log_scale$'
    return dict(
        type='OptimWrapper',
        constructor='PatternOptimWrapperConstructor',
        optimizer=dict(
            type='BertAdam',
            lr=meta['lr'],
            betas=(meta['b1'], meta['b2']),
            eps=meta['e'],
            weight_decay=meta['weight_decay'],
            max_grad_norm=meta['max_grad_norm'],
        ),
        clip_grad=dict(max_norm=meta['global_clip']),
        paramwise_cfg=dict(
            rules=[
                dict(pattern=clip, lr_mult=meta['coef_lr']),
                dict(pattern='bias', decay_mult=0.0),
            ]
        ),
    )


def _check_groups(
    model: Model, wrapper: Any, steps: dict[str, np.ndarray], meta: dict
) -> None:
    """Every parameter has the release's rate and decay."""
    groups = dict(
        zip(
            steps['param_names'].tolist(),
            steps['group_of_param'].tolist(),
            strict=True,
        )
    )
    names = {id(p): n for n, p in model.model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            theirs = model.theirs[names[id(parameter)]]
            rate, decay = steps['group_lr_wd'][groups[theirs]]
            assert group['weight_decay'] == pytest.approx(decay), theirs
            peak = group.get('initial_lr', group['lr'])
            assert peak == pytest.approx(rate), theirs


def _step_draws(
    model: Model, steps: dict[str, np.ndarray]
) -> list[tuple[str, np.ndarray]]:
    draws = []
    for text, total in zip(
        steps['noise_shapes'].tolist(), steps['noise_sums'], strict=True
    ):
        number, kind, shape = text.split(' ', 2)
        array = rule_noise(
            kind,
            int(number),
            ast.literal_eval(shape),
            model.meta['noise_seed_steps'],
            model.meta.get('stochastic_prior_std', 1.0),
        )
        np.testing.assert_allclose(
            array.sum(dtype=np.float64), total, rtol=1e-6, atol=1e-6
        )
        draws.append((kind, array))
    return draws
