"""Energy-aware matching by brute force: all pairs expanded."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tools.benchmark.reference.brute_force import (
    Weights,
    energy_pairs,
    frame_energies,
)


class LangevinNoise(Protocol):
    """Where chains take their random numbers from, those of given rows.

    Shapes are those of a row.
    """

    def uniform(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor: ...

    def normal(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor: ...

    def permutation(self, size: int, like: Tensor) -> Tensor: ...


class TorchNoise:
    """Random numbers of PyTorch's own generator.

    Args:
        generator (torch.Generator, optional): Default: None, the global one
            of the device.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def uniform(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        return torch.rand(
            (len(rows), *shape),
            dtype=like.dtype,
            device=like.device,
            generator=self.generator,
        )

    def normal(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        return torch.randn(
            (len(rows), *shape),
            dtype=like.dtype,
            device=like.device,
            generator=self.generator,
        )

    def permutation(self, size: int, like: Tensor) -> Tensor:
        return torch.randperm(
            size, device=like.device, generator=self.generator
        )


def reduce_frames(energy: Tensor, reduction: str) -> Tensor:
    """Bring energies ``(..., F)`` to one a video.

    The gradient of a tie goes to the first frame.
    """
    if reduction == 'mean':
        return energy.mean(dim=-1)
    return getattr(energy, reduction)(dim=-1).values


class BruteForceEnergy(torch.nn.Module):
    """The energy loss as the formulas stand, with its replay buffer.

    Args:
        num_frames (int): Frames ``F``.
        width (int): Width ``D``.
        function (str): ``'mlp'``, ``'bilinear'`` or ``'cossim'``.
        reduction (str): ``'mean'``, ``'max'`` or ``'min'`` over frames.
        regularization (float): Weight of the squared energies.
        num_steps (int): Langevin steps.
        step_size (float): Factor of the gradient.
        noise_std (float): Of the noise of a step.
        buffer_size (int): Entries of the buffer.
        replay_fraction (float): Share of a batch that is replayed.
        replay_unfilled (bool): Whether entries never filled are replayed, as
            the release does.
    """

    def __init__(
        self,
        num_frames: int,
        width: int,
        function: str = 'mlp',
        reduction: str = 'mean',
        *,
        regularization: float = 1.0,
        num_steps: int = 20,
        step_size: float = 1.0,
        noise_std: float = 0.005,
        buffer_size: int = 500,
        replay_fraction: float = 0.95,
        replay_unfilled: bool = True,
    ) -> None:
        super().__init__()
        self.function = function
        self.reduction = reduction
        self.regularization = regularization
        self.num_steps = num_steps
        self.step_size = step_size
        self.noise_std = noise_std
        self.replay_fraction = replay_fraction
        self.replay_unfilled = replay_unfilled
        shape = (buffer_size, num_frames, width)
        self.register_buffer('replay_video', torch.zeros(shape))
        self.register_buffer('replay_text', torch.zeros(buffer_size, width))
        self.register_buffer('replay_fill', torch.zeros((), dtype=torch.int64))
        self.replay_video: Tensor
        self.replay_text: Tensor
        self.replay_fill: Tensor

    def all_pairs(
        self, frames: Tensor, text: Tensor, weights: Weights
    ) -> Tensor:
        """Energies of all pairs, rows are texts, shape ``(Bt, Bv)``."""
        energy = energy_pairs(frames, text, weights, self.function)
        return reduce_frames(energy, self.reduction)

    def matching(
        self, frames: Tensor, text: Tensor, weights: Weights
    ) -> Tensor:
        """Energies of video ``i`` and text ``i``, shape ``(B,)``."""
        energy = frame_energies(frames, text[:, None], weights, self.function)
        return reduce_frames(energy, self.reduction)

    def start(self, size: int, noise: LangevinNoise) -> tuple[Tensor, Tensor]:
        """Start chains, frames ``(B, F, D)`` and text ``(B, D)``."""
        buffers = self.replay_video, self.replay_text
        fill = int(self.replay_fill)
        if fill == 0:
            frames, text = (
                2 * noise.uniform(range(size), tuple(x.shape[1:]), x) - 1
                for x in buffers
            )
            return frames, text
        entries = len(self.replay_video) if self.replay_unfilled else fill
        chosen = noise.permutation(entries, self.replay_video)
        chosen = chosen[: int(self.replay_fraction * size)]
        rest = range(len(chosen), size)
        frames, text = (
            torch.cat([x[chosen], noise.uniform(rest, tuple(x.shape[1:]), x)])
            for x in buffers
        )
        return frames, text

    def sample(
        self, size: int, weights: Weights, noise: LangevinNoise
    ) -> tuple[Tensor, Tensor]:
        """Run chains with the weights as constants."""
        constants = {name: value.detach() for name, value in weights.items()}
        frames, text = self.start(size, noise)
        for _ in range(self.num_steps):
            with torch.enable_grad():
                frames.requires_grad_(True)
                text.requires_grad_(True)
                energy = self.matching(frames, text, constants)
                slopes = torch.autograd.grad(energy.sum(), (frames, text))
            frames, text = (
                x.detach()
                - self.step_size * slope
                + self.noise_std
                * noise.normal(range(size), tuple(x.shape[1:]), x)
                for x, slope in zip((frames, text), slopes, strict=True)
            )
        return frames, text

    @torch.no_grad()
    def store(self, frames: Tensor, text: Tensor) -> None:
        """Push samples in front of the buffer."""
        size = len(self.replay_video)
        fill = min(int(self.replay_fill) + len(frames), size)
        self.replay_video.copy_(torch.cat([frames, self.replay_video])[:size])
        self.replay_text.copy_(torch.cat([text, self.replay_text])[:size])
        self.replay_fill.fill_(fill)

    def contrast(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute ``l(low, high)``."""
        squares = low.square().mean() + high.square().mean()
        return low.mean() - high.mean() + self.regularization * squares

    def forward(
        self,
        frames: Tensor,
        text: Tensor,
        weights: Weights,
        noise: LangevinNoise | None = None,
    ) -> Tensor:
        """Compute the loss; in training the samples are stored.

        Args:
            frames (Tensor): Shape ``(B, F, D)``, two videos or more.
            text (Tensor): Shape ``(B, D)``.
            weights (dict): Of the energy network, the release's names.
            noise (LangevinNoise, optional): Default: None, PyTorch's.
        """
        pairs = self.all_pairs(frames, text, weights)
        sampled = self.sample(len(text), weights, noise or TorchNoise())
        if self.training:
            self.store(*sampled)
        other = ~torch.eye(len(text), dtype=torch.bool, device=text.device)
        positive, negative = pairs.diagonal(), pairs[other]
        drawn = self.matching(*sampled, weights)
        return (
            self.contrast(positive, negative) + self.contrast(positive, drawn)
        ) / 2
