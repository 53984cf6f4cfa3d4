"""The EagleNet head on given features, against the release."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.golden.cases import (
    RecordedHead,
    build_head,
    case_names,
    load,
    load_head,
    meta_of,
    part,
    ruled_draws,
    stored_draws,
    tensor,
    weights_by_rule,
)
from tests.golden.conftest import to_numpy
from tests.golden.rules import gradient_summary, rule_noise
from tools.benchmark.reference.brute_force import score_pairs

FILE = 'frl_head.npz'
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
LOSS_NAMES = {
    'sim_loss1': 'loss_match',
    'sim_loss2': 'loss_support',
    'eam_loss': 'loss_energy',
    'eam_support_loss': 'loss_energy_support',
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'case_name' in metafunc.fixturenames:
        metafunc.parametrize('case_name', case_names(metafunc.config, FILE))


@pytest.fixture(params=[torch.float32, torch.float64], ids=['f32', 'f64'])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


class Case:
    """One case with its weights, in one precision."""

    def __init__(
        self, folder: Path, name: str, dtype: torch.dtype, **options: Any
    ) -> None:
        arrays = load(folder, FILE)
        self.name, self.dtype = name, dtype
        self.arrays = part(arrays, name)
        self.meta = meta_of(self.arrays)
        if self.meta['weights_stored']:
            self.weights = part(arrays, 'w')
        else:
            self.weights = weights_by_rule(
                self.arrays['param_names'].tolist(),
                [
                    ast.literal_eval(shape)
                    for shape in self.arrays['param_shapes'].tolist()
                ],
                self.meta['seed'],
            )
            sums = [w.sum(dtype=np.float64) for w in self.weights.values()]
            np.testing.assert_allclose(
                sums, self.arrays['param_sums'], rtol=1e-6, atol=1e-6
            )
        self.head: RecordedHead = build_head(self.meta, **options)
        self.theirs = load_head(self.head, self.weights, self.meta)
        self.head.to(dtype)

    def features(
        self, prefix: str, grad: bool = False
    ) -> tuple[TextFeatures, VideoFeatures]:
        text = tensor(self.arrays[f'{prefix}/text'], self.dtype, grad)
        frames = tensor(self.arrays[f'{prefix}/video'], self.dtype, grad)
        mask = frames.new_ones(frames.shape[:2], dtype=torch.bool)
        return TextFeatures(text), VideoFeatures(frames, mask)

    def eval_noise(self) -> np.ndarray:
        if 'eval/noise' in self.arrays:
            return self.arrays['eval/noise']
        meta = self.meta
        kind = 'rand' if meta['stochastic_prior'] == 'uniform01' else 'normal'
        shape = (
            meta['stochastic_trials'],
            meta['eval_bst'] * meta['eval_bsv'],
            meta['dim'],
        )
        noise = rule_noise(
            kind,
            0,
            shape,
            meta['noise_seed_eval'],
            meta['stochastic_prior_std'],
        )
        np.testing.assert_allclose(
            noise.sum(dtype=np.float64),
            float(self.arrays['eval/noise_sum']),
            rtol=1e-6,
        )
        return noise

    def draws(self, call: str) -> list[tuple[str, np.ndarray]]:
        if part(self.arrays, f'{call}/noise'):
            return stored_draws(self.arrays, f'{call}/noise')
        return ruled_draws(
            self.arrays,
            call,
            self.meta['noise_seed_train'],
            self.meta['stochastic_prior_std'],
        )

    @property
    def suffix(self) -> str:
        return '64' if self.dtype is torch.float64 else ''


def test_evaluation(
    case_name: str,
    dtype: torch.dtype,
    golden_dir: Path,
    golden_report: Callable[..., float],
) -> None:
    case = Case(golden_dir, case_name, dtype)
    head, tolerance = case.head.eval(), TOLERANCE[dtype]
    text, video = case.features('eval')
    noise = case.eval_noise()
    label = f'frl_head/{case_name}/eval'
    head.feed([('rand', noise)])
    with torch.no_grad():
        scores = head(text, video)
    golden_report(
        f'{label}/logits{case.suffix}',
        scores,
        case.arrays[f'eval/logits{case.suffix}'],
        tolerance,
        double=case.arrays['eval/logits64'],
    )
    if dtype is torch.float64:
        return  # intermediates are stored in float32 alone
    head.feed([('rand', noise)])
    seen: list[torch.Tensor] = []
    hook = head.graph.register_forward_hook(
        lambda _module, _inputs, out: seen.append(out.softmax(dim=-1))
    )
    with torch.no_grad():
        state = head.prepare_video(video)
        pair_noise = tensor(noise).view(
            len(noise), len(text), len(video), case.meta['dim']
        )
        enriched, pooled, _ = head.enrich_and_pool(
            head.prepare_text(text), state, pair_noise.permute(2, 1, 0, 3)
        )
    hook.remove()
    golden_report(
        f'{label}/beta',
        seen[0].transpose(0, 1).flatten(0, 1),
        case.arrays['eval/beta'],
        1e-4,
    )
    golden_report(
        f'{label}/t_star',
        enriched.transpose(0, 1),
        case.arrays['eval/t_star'],
        1e-4,
    )
    golden_report(f'{label}/pooled', pooled, case.arrays['eval/pooled'], 1e-4)


@pytest.mark.nightly
def test_brute_force_reference(
    case_name: str, golden_dir: Path, golden_report: Callable[..., float]
) -> None:
    """The slow reference of the tests is itself held to the golden data."""
    case = Case(golden_dir, case_name, torch.float64)
    meta = case.meta
    text, video = case.features('eval')
    weights = {
        name: tensor(weight, torch.float64)
        for name, weight in case.weights.items()
        if meta['framepe'] or name != 'frame_pe'
    }
    out = score_pairs(
        text.embeds,
        video.frames,
        tensor(case.eval_noise(), torch.float64),
        weights,
        graph=meta['gnn_type'],
        layers=meta['gnn_num_layers'],
        heads=meta['gnn_nheads'],
        slope=meta['gnn_leaky_slope'],
        version=2 if meta['gnn_v2'] else 1,
        pooling_heads=meta['pooling_head'],
    )
    golden_report(
        f'reference/{case_name}/eval/logits64',
        out['logits'],
        case.arrays['eval/logits64'],
        1e-6,
    )


@pytest.mark.parametrize('chunked', [False, True], ids=['whole', 'chunked'])
def test_training(
    case_name: str,
    dtype: torch.dtype,
    chunked: bool,
    golden_dir: Path,
    golden_report: Callable[..., float],
) -> None:
    """Losses, gradients and replay of two successive calls."""
    case = Case(golden_dir, case_name, dtype)
    head = case.head.train()
    if chunked:  # one video a chunk, none kept
        head.memory_budget = len(case.arrays['train/text']) * (
            head.bytes_per_pair(training=True)
        )
    for call in ('train', 'train_call1'):
        if f'{call}/total' in case.arrays:
            _check_call(case, call, chunked, golden_report)


def _check_call(
    case: Case, call: str, chunked: bool, report: Callable[..., float]
) -> None:
    head, meta, arrays = case.head, case.meta, case.arrays
    tolerance, suffix = TOLERANCE[case.dtype], case.suffix
    label = f'frl_head/{case.name}/{call}'
    text, video = case.features('train', grad=True)
    head.feed(case.draws(call))
    matrices: list[torch.Tensor] = []
    hook = head.loss_match.register_forward_hook(
        lambda module, inputs, _out: matrices.append(
            module.logits(inputs[0])
            if meta['loss_fn'] == 'clip'
            else inputs[0]
        )
    )
    losses = head.loss(text, video)
    hook.remove()
    assert not head.draws, 'recorded draws are left over'
    total = sum(v for k, v in losses.items() if 'loss' in k)
    head.zero_grad()
    total.backward()
    _compare(report, label, arrays, call, f'total{suffix}', total, tolerance)
    for number, matrix in enumerate(matrices, start=1):
        _compare(
            report,
            label,
            arrays,
            call,
            f'logits{number}{suffix}',
            matrix,
            tolerance,
        )
    weights = {
        'sim_loss2': meta['support_loss_weight'],
        'eam_loss': meta['eam_loss_weight'],
        'eam_support_loss': meta['eam_support_loss_weight'],
    }
    for theirs, ours in LOSS_NAMES.items():
        key = f'{call}/{theirs}{suffix}'
        assert (ours in losses) == (f'{call}/{theirs}' in arrays), theirs
        if key in arrays:
            weight = weights.get(theirs, 1.0)
            _compare(
                report,
                label,
                arrays,
                call,
                f'{theirs}{suffix}',
                losses[ours] / weight,
                tolerance,
            )
    for side, feats in (('text', text.embeds), ('video', video.frames)):
        report(
            f'{label}/grad{suffix}/{side}',
            feats.grad,
            arrays[f'{call}/grad{suffix}/{side}'],
            tolerance,
            double=arrays[f'{call}/grad64/{side}'],
        )
    _check_gradients(case, call, label, report)
    if head.loss_energy is not None and not suffix:
        # no float64 twin: where a chain of float32 took the other side of a
        # ReLU, the gradient of the energy's weights shows it
        off = max(
            (
                error
                for ours, error in float32_errors(case, call).items()
                if ours.startswith('loss_energy')
            ),
            default=0.0,
        )
        for theirs, ours in (('vid', 'video'), ('txt', 'text')):
            expected = arrays[f'{call}/replay_buffer_{theirs}']
            got = getattr(head.loss_energy.sampler, f'replay_{ours}')
            report(
                f'{label}/replay_buffer_{theirs}',
                got[: len(expected)],
                expected,
                max(tolerance, 10 * off),
            )


def float32_errors(case: Case, call: str) -> dict[str, float]:
    """How far the release's float32 gradients are from its float64 ones."""
    arrays, ours = case.arrays, {v: k for k, v in case.theirs.items()}
    exact = arrays[f'{call}/grad_summary64']
    largest = float(exact[:, 0].max())
    errors = {}
    for name, row, double in zip(
        arrays[f'{call}/grad_names'].tolist(),
        arrays[f'{call}/grad_summary'],
        exact,
        strict=True,
    ):
        norm = double[0] if double[0] > 1e-9 * largest else largest
        root = np.sqrt(case.weights[name].size)
        errors[ours[name]] = float(
            (np.abs(row - double) / norm / [1, root, 1]).max()
        )
    return errors


def _compare(
    report: Callable[..., float],
    label: str,
    arrays: dict[str, np.ndarray],
    call: str,
    name: str,
    got: torch.Tensor,
    tolerance: float,
) -> None:
    """Compare an array that has a float64 twin."""
    report(
        f'{label}/{name}',
        got,
        arrays[f'{call}/{name}'],
        tolerance,
        double=arrays[f'{call}/{name.removesuffix("64")}64'],
    )


def _check_gradients(
    case: Case, call: str, label: str, report: Callable[..., float]
) -> None:
    arrays, suffix = case.arrays, case.suffix
    tolerance = TOLERANCE[case.dtype]
    names = arrays[f'{call}/grad_names'].tolist()
    summary = dict(
        zip(names, arrays[f'{call}/grad_summary{suffix}'], strict=True)
    )
    exact = dict(zip(names, arrays[f'{call}/grad_summary64'], strict=True))
    largest = max(row[0] for row in exact.values())
    unused = set(arrays[f'{call}/none_grads'].tolist())
    parameters = dict(case.head.named_parameters())
    seen = set()
    for ours, theirs in case.theirs.items():
        gradient = parameters[ours].grad
        if theirs in unused or not parameters[ours].requires_grad:
            assert gradient is None or not gradient.any(), theirs
            continue
        seen.add(theirs)
        shape = case.weights[theirs].shape
        gradient = to_numpy(gradient).reshape(shape)
        got = gradient_summary(theirs, gradient, case.meta['seed'])
        # a gradient that is zero but for rounding has no scale of its own
        vanishes = exact[theirs][0] <= 1e-9 * largest
        norm = largest if vanishes else summary[theirs][0]
        # sum and projection of a tensor are of the size of its norm at
        # most times the root of its entries
        scales = norm * np.array([1, np.sqrt(gradient.size), 1])
        for values in zip(
            got, summary[theirs], exact[theirs], scales, strict=True
        ):
            got_value, value, double, scale = values
            report(
                f'{label}/grad_summary{suffix}',
                got_value,
                value,
                tolerance,
                scale=scale,
                double=double,
            )
        key = f'{call}/grad/w/{theirs}'
        if key in arrays and not suffix:
            # no float64 twin: how far float32 is off, the summary tells
            off = np.abs(summary[theirs] - exact[theirs]) / scales
            report(
                f'{label}/grad/w/{theirs}',
                gradient,
                arrays[key],
                max(tolerance, 10 * float(off.max())),
                scale=largest if vanishes else None,
            )
    assert seen == set(names), set(names) ^ seen
