"""The head's training step equals the brute-force reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.tiny import FRAMES, WIDTH, eaglenet_head
from tests.reference.injected_noise import inject_noise, seeded_noise
from tools.benchmark.reference.brute_force_training import BruteForceObjective
from tools.benchmark.reference.release_weights import (
    release_names,
    release_weights,
)

BATCH, CANDIDATES = 4, 4
DOUBLE = torch.float64


def energy(kind: str, reduction: str, **sampler: object) -> dict:
    return dict(
        type='EnergyMatchingLoss',
        energy=dict(type=kind, reduction=reduction),
        regularization=0.7,
        sampler=dict(
            num_steps=3, step_size=0.8, noise_std=0.01, buffer_size=6,
            **sampler,
        ),
    )  # fmt: skip


VARIANTS = {
    'recipe': dict(),
    'no frame embedding': dict(frame_embedding=False),
    'one layer': dict(graph=dict(num_layers=1)),
    'three layers': dict(graph=dict(num_layers=3, num_heads=2)),
    'plain graph': dict(graph=dict(type='gat', num_layers=1)),
    'plain graph 2': dict(
        graph=dict(type='gat', version=2, negative_slope=0.3)
    ),
    'pooling heads': dict(pooling=dict(num_heads=2)),
    'normal': dict(prior='normal', prior_std=0.5),
    'contrastive': dict(
        loss_match=dict(type='InfoNCELoss', loss_weight=0.5)
    ),
    'fixed scale': dict(
        loss_match=dict(type='PairwiseSigmoidLoss', learnable=False)
    ),
    'bilinear max': dict(loss_energy=energy('BilinearEnergy', 'max')),
    'cosine min': dict(loss_energy=energy('CosineEnergy', 'min')),
    'replays zeros': dict(
        loss_energy=energy('MLPEnergy', 'mean', replay_unfilled=True)
    ),
    'energy of support alone': dict(
        support_weight=0.0, energy_weight=0.0, energy_support_weight=0.6
    ),
    'no support': dict(
        support_weight=0.0, energy_weight=0.3, energy_support_weight=0.0
    ),
    'no energy': dict(
        support_weight=0.4, loss_energy=None, energy_support_weight=0.0
    ),
}  # fmt: skip


def build(dropout: bool = False, **overrides: object) -> EagleNetHead:
    """Build a head in training, its parameters away from their start."""
    if not dropout:
        for part in ('graph', 'pooling'):
            overrides[part] = dict(overrides.get(part, {}), dropout=0.0)
    head = MODELS.build(eaglenet_head(**overrides)).to(DOUBLE)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head.train()


def inputs() -> tuple[Tensor, Tensor]:
    return (
        torch.randn(BATCH, WIDTH, dtype=DOUBLE, requires_grad=True),
        torch.randn(BATCH, FRAMES, WIDTH, dtype=DOUBLE, requires_grad=True),
    )


@pytest.mark.parametrize('variant', VARIANTS)
def test_losses_and_gradients_are_those_of_the_head(variant: str) -> None:
    head = build(**VARIANTS[variant])
    objective = BruteForceObjective(head)
    for step in range(2):  # the second replays
        text, frames = inputs()
        noise = torch.rand(CANDIDATES, BATCH**2, WIDTH, dtype=DOUBLE)
        inject_noise(head, noise, seeded_noise(step))
        mask = torch.ones(frames.shape[:2], dtype=torch.bool)
        head.zero_grad()
        losses = head.loss(TextFeatures(text), VideoFeatures(frames, mask))
        losses = {k: v for k, v in losses.items() if 'loss' in k}
        sum(losses.values()).backward()
        theirs = inputs_again(text, frames)
        objective.zero_grad()
        expected = objective(*theirs, noise, seeded_noise(step))
        sum(expected.values()).backward()
        assert set(losses) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value, msg=name)
        for own, other in zip((text, frames), theirs, strict=True):
            assert_gradient(own.grad, other.grad, 'features')
        compare_gradients(head, objective)
        compare_replay(head, objective)


def inputs_again(*values: Tensor) -> list[Tensor]:
    return [value.detach().clone().requires_grad_() for value in values]


def assert_gradient(got: Tensor, expected: Tensor, name: str) -> None:
    torch.testing.assert_close(
        got, expected, rtol=1e-7, atol=1e-10,
        msg=lambda text: f'{name}: {text}',
    )  # fmt: skip


def compare_gradients(
    head: EagleNetHead, objective: BruteForceObjective
) -> None:
    names = release_names(head)
    own = dict(head.named_parameters())
    assert set(names.values()) == set(own)
    weights = objective.weights
    for theirs, ours in names.items():
        expected = weights[theirs].grad
        if expected is None:
            assert own[ours].grad is None or not own[ours].grad.any(), ours
            continue
        got = own[ours].grad.view_as(expected)
        assert_gradient(got, expected, ours)
    # the rest of the release's last layer reaches no result
    for name in set(weights) - set(names):
        assert weights[name].grad is None, name


def compare_replay(head: EagleNetHead, objective: BruteForceObjective) -> None:
    if head.loss_energy is not None:
        for name, buffer in objective.energy.named_buffers():
            got = getattr(head.loss_energy.sampler, name)
            torch.testing.assert_close(got, buffer, msg=name)


def test_weights_are_copies() -> None:
    head = build()
    objective = BruteForceObjective(head)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    with torch.no_grad():
        for tensor in [*objective.parameters(), *objective.buffers()]:
            tensor.zero_()
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_every_parameter_has_a_name_of_the_release() -> None:
    for variant in VARIANTS.values():
        head = build(**variant)
        names = release_names(head)
        assert set(names.values()) == set(dict(head.named_parameters()))
        assert set(names) <= set(release_weights(head))


def test_dropout_acts_in_training_until_it_is_switched_off() -> None:
    head = build(dropout=True)
    objective = BruteForceObjective(head)
    text, frames = inputs()
    noise = torch.rand(CANDIDATES, BATCH**2, WIDTH, dtype=DOUBLE)

    def value() -> Tensor:
        return objective(text, frames, noise)['loss_match'].detach()

    assert value() != value()
    objective.switch_dropout(False)
    still = value()
    assert value() == still
    objective.switch_dropout(True)
    assert value() != still
    assert objective.eval() is objective
    assert value() == still


@pytest.mark.parametrize('part', ['graph', 'pooling'])
def test_each_dropout_acts(part: str) -> None:
    other = {'graph': 'pooling', 'pooling': 'graph'}[part]
    head = build(dropout=True, **{other: dict(dropout=0.0)})
    objective = BruteForceObjective(head)
    text, frames = inputs()
    noise = torch.rand(CANDIDATES, BATCH**2, WIDTH, dtype=DOUBLE)
    first, second = (
        objective(text, frames, noise)['loss_match'] for _ in range(2)
    )
    assert first != second


def test_noise_is_drawn_where_none_is_given() -> None:
    objective = BruteForceObjective(build())
    text, frames = inputs()
    torch.manual_seed(1)
    first = objective(text, frames)
    second = objective(text, frames)
    assert set(first) == set(second)
    assert all(first[name] != second[name] for name in first)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (dict(use_frame_mask=True), 'masks no frames'),
        (dict(loss_match=None), 'loss_match=NoneType'),
    ],
)
def test_what_the_formulas_lack_is_refused(
    overrides: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BruteForceObjective(build(**overrides))
