"""Energies, their sampler and the loss, against loops and derivatives."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.layers import KeyedRandom
from eaglenet_mm.models.losses import (
    EnergyMatchingLoss,
    KeyedNoise,
    energy_matching_loss,
)
from eaglenet_mm.models.losses.energy_matching_loss import (
    FrameTextEnergy,
    reduce_frames,
)
from tools.benchmark.reference.brute_force import energy_pairs

ENERGIES = {
    'mlp': 'MLPEnergy',
    'bilinear': 'BilinearEnergy',
    'cossim': 'CosineEnergy',
}


def build(
    energy: str = 'mlp', reduction: str = 'mean', **options: object
) -> EnergyMatchingLoss:
    sampler = dict(num_steps=3, buffer_size=6, **options.pop('sampler', {}))
    return EnergyMatchingLoss(
        8,
        3,
        energy=dict(type=ENERGIES[energy], reduction=reduction),
        sampler=sampler,
        **options,
    ).double()


def noise(step: int = 0) -> KeyedNoise:
    return KeyedNoise(KeyedRandom(3, step), 'energy')


def sides(
    videos: int = 4, texts: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.randn(videos, 3, 8, dtype=torch.float64),
        torch.randn(texts, 8, dtype=torch.float64),
    )


def release_weights(loss: EnergyMatchingLoss, energy: str) -> dict:
    own = dict(loss.energy.named_parameters())
    if energy == 'mlp':
        return {
            'ebm.energy_net.0.weight': own['hidden.weight'],
            'ebm.energy_net.0.bias': own['hidden.bias'],
            'ebm.energy_net.2.weight': own['output.weight'],
            'ebm.energy_net.2.bias': own['output.bias'],
        }
    return {f'ebm.energy_net.{k[10:]}': v for k, v in own.items()}


@pytest.mark.parametrize('reduction', ['mean', 'max', 'min'])
@pytest.mark.parametrize('energy', ENERGIES)
@pytest.mark.parametrize('masked', [False, True])
def test_all_pairs_and_matching(
    energy: str,
    reduction: str,
    masked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = build(energy, reduction)
    frames, text = sides(videos=5, texts=4)
    mask = torch.ones(5, 3, dtype=torch.bool)
    if masked:
        mask[::2, -1] = False
    expected = torch.empty(4, 5, dtype=torch.float64)
    single = energy_pairs(frames, text, release_weights(loss, energy), energy)
    for i in range(4):
        for j in range(5):
            real = single[i, j][mask[j]]
            expected[i, j] = getattr(real, reduction)()
    given = mask if masked else None
    for budget in (10**9, 1):
        monkeypatch.setitem(energy_matching_loss.CHUNK_BYTES, 'cpu', budget)
        got = loss.all_pairs(frames, text, given)
        torch.testing.assert_close(got, expected)
    got = loss.energy.matching(frames[:4], text, mask[:4] if masked else None)
    torch.testing.assert_close(got, expected.diagonal())


@pytest.mark.parametrize('chunk', [1, 200])
def test_backward_pass_of_all_pairs(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(energy_matching_loss.CHUNK_BYTES, 'cpu', chunk)
    sizes = ((3, 2, 4), (5, 4), (4,))
    inputs = [torch.randn(size, dtype=torch.float64) for size in sizes]
    assert torch.autograd.gradcheck(
        energy_matching_loss._PairEnergies.apply,
        [x.requires_grad_() for x in inputs],
    )


@pytest.mark.parametrize('reduction', ['mean', 'max', 'min'])
@pytest.mark.parametrize('energy', ENERGIES)
def test_gradients_written_out_are_those_of_autograd(
    energy: str, reduction: str
) -> None:
    function = build(energy, reduction).energy
    frames, text = sides()
    text[1] = 0.0  # as a replay buffer that was never filled has them
    frames[2, 1] = 0.0
    got = function.gradient(frames, text)
    expected = FrameTextEnergy.gradient(function, frames, text)
    for one, other in zip(got, expected, strict=True):
        assert not one.requires_grad
        torch.testing.assert_close(one, other)


def test_chains_of_a_share_are_those_of_the_whole() -> None:
    """Whichever process runs a chain, also when some are replayed."""
    loss = build('mlp', sampler=dict(replay_fraction=0.5))
    frames, text = sides()
    loss(frames, text, noise(0))
    gradient = loss.energy.gradient
    whole = loss.sampler.sample(gradient, 7, noise(1))
    for rank in range(3):
        rows = range(rank, 7, 3)
        part = loss.sampler.sample(gradient, 7, noise(1), rows)
        for one, other in zip(part, whole, strict=True):
            torch.testing.assert_close(one, other[rank::3])


def test_ties_send_the_gradient_to_one_frame() -> None:
    energy = torch.zeros(2, 3, requires_grad=True)
    reduce_frames(energy, 'max', None).sum().backward()
    assert energy.grad.tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize('energy', ENERGIES)
def test_loss_is_its_formula(energy: str) -> None:
    loss = build(energy, regularization=0.3)
    frames, text = sides()
    got = loss(frames, text, noise())
    pairs = loss.all_pairs(frames, text)
    sampled = loss.energy.matching(
        loss.sampler.replay_video[:4], loss.sampler.replay_text[:4]
    )
    positive = pairs.diagonal()
    negative = pairs[~torch.eye(4, dtype=torch.bool)]
    expected = 0.0
    for other in (negative, sampled):
        expected += positive.mean() - other.mean()
        expected += 0.3 * (positive**2).mean() + 0.3 * (other**2).mean()
    torch.testing.assert_close(got, expected / 2)


def test_langevin_steps_follow_the_gradient() -> None:
    """One chain by hand, with derivatives by finite differences."""
    loss = build('mlp', sampler=dict(noise_std=0.0, step_size=0.5))
    loss.sampler.num_steps = 1
    start = noise()
    rows, like = range(2), loss.sampler.replay_video
    frames = 2 * start.uniform(rows, (3, 8), like) - 1
    text = 2 * start.uniform(rows, (8,), like) - 1
    got_frames, got_text = loss.sampler.sample(
        loss.energy.gradient, 2, noise()
    )

    def energy(f: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return loss.energy.matching(f, t).sum().detach()

    step = 1e-6
    for place in ((0, 0, 0), (1, 2, 7)):
        moved = frames.clone()
        moved[place] += step
        slope = (energy(moved, text) - energy(frames, text)) / step
        torch.testing.assert_close(
            got_frames[place], frames[place] - 0.5 * slope,
            atol=1e-5, rtol=1e-4,
        )  # fmt: skip
    moved = text.clone()
    moved[1, 3] += step
    slope = (energy(frames, moved) - energy(frames, text)) / step
    torch.testing.assert_close(
        got_text[1, 3], text[1, 3] - 0.5 * slope, atol=1e-5, rtol=1e-4
    )


def test_samples_carry_no_gradient_but_parameters_do() -> None:
    loss = build('mlp')
    frames, text = sides()
    frames.requires_grad_(True)
    loss(frames, text, noise()).backward()
    assert all(p.grad is not None for p in loss.parameters())
    assert frames.grad is not None
    assert not loss.sampler.replay_video.requires_grad


def test_replay_takes_what_was_filled() -> None:
    loss = build('mlp', sampler=dict(replay_fraction=0.5))
    sampler = loss.sampler
    frames, text = sides()
    loss(frames, text, noise(0))
    assert int(sampler.replay_fill) == 4
    kept = sampler.replay_video[:4].clone()
    started_frames, _ = sampler.start(4, noise(1), range(4))
    for entry in started_frames[:2]:
        assert any(torch.equal(entry, old) for old in kept)
    assert (started_frames[2:] >= 0).all()
    assert (started_frames[2:] < 1).all()
    loss(frames, text, noise(1))
    assert int(sampler.replay_fill) == 6
    torch.testing.assert_close(sampler.replay_video[4:], kept[:2])


@pytest.mark.parametrize('sizes', [(3, 9, 1), (9, 2, 5)])
def test_batches_of_any_size(sizes: tuple[int, ...]) -> None:
    """Smaller, larger than the buffer, and of one pair."""
    loss = build('bilinear')
    for step, size in enumerate(sizes):
        frames, text = sides(size, size)
        assert torch.isfinite(loss(frames, text, noise(step)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(sampler=dict(num_steps=0)), 'num_steps=0'),
        (dict(sampler=dict(buffer_size=0)), 'buffer_size=0'),
        (dict(sampler=dict(replay_fraction=1.5)), 'between 0 and 1, but is 1'),
        (
            dict(energy=dict(type='MLPEnergy', reduction='sum')),
            "reduction must be one of .* is 'sum'",
        ),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnergyMatchingLoss(8, 3, **options)


def test_features_are_checked() -> None:
    loss = build()
    frames, text = sides()
    with pytest.raises(ValueError, match=r'\(B, 3, 8\), but got \(4, 2, 8\)'):
        loss(frames[:, :2], text, noise())
    with pytest.raises(ValueError, match='3 texts and 4 videos'):
        loss(frames, text[:3], noise())
