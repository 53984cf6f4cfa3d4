"""Langevin dynamics with a replay buffer, over video-text pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from mmengine.model import BaseModule
from torch import Tensor


class NoiseSource(Protocol):
    """Where the sampler takes its random numbers from."""

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw from ``U[0, 1)``."""

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw from ``N(0, 1)``."""

    def permutation(self, size: int, like: Tensor) -> Tensor:
        """Draw a permutation of ``size`` numbers."""


class LangevinSampler(BaseModule):
    """Draws pairs of low energy to serve as negatives.

    Runs ``x <- x - step_size * dE/dx + noise_std * N(0, 1)`` over the frames
    and the text of each pair together, without a graph over the chain. The
    first chains start from ``U[-1, 1)``. Later ones take up to
    ``int(replay_fraction * B)`` entries of the buffer, and start the rest
    from ``U[0, 1)``. Every result goes to the front of the buffer. Section
    3.3 of `EagleNet <https://arxiv.org/abs/2603.25267>`_.

    Differs from the release in what becomes of the entries that the buffer
    has not received yet, all zeros: they are not replayed, unless
    ``replay_unfilled`` asks for it. A replayed zero video has an unbounded
    gradient under a normalising energy; in the release such entries jump to
    about 1e11 and stay in the buffer. The number of filled entries is part of
    the state dict, so a resumed run goes on as it was. The batch may have any
    size at any call.

    Args:
        num_frames (int): Frames of a video ``F``.
        embed_dim (int): Width ``D``.
        num_steps (int): Steps of a chain. Default: 20.
        step_size (float): Factor of the gradient. Default: 1.
        noise_std (float): Of the noise of a step. Default: 0.005.
        buffer_size (int): Entries of the buffer. Default: 500.
        replay_fraction (float): Share of a batch that is replayed.
            Default: 0.95.
        replay_unfilled (bool): Replay also entries never filled.
            Default: False.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        num_frames: int,
        embed_dim: int,
        num_steps: int = 20,
        step_size: float = 1.0,
        noise_std: float = 0.005,
        buffer_size: int = 500,
        replay_fraction: float = 0.95,
        replay_unfilled: bool = False,
    ) -> None:
        super().__init__()
        if num_steps < 1 or buffer_size < 1:
            raise ValueError(
                'The sampler needs at least one step and one buffer entry, '
                f'but got num_steps={num_steps} and '
                f'buffer_size={buffer_size}.'
            )
        if not 0.0 <= replay_fraction <= 1.0:
            raise ValueError(
                'replay_fraction is a share between 0 and 1, but is '
                f'{replay_fraction}.'
            )
        self.num_steps = num_steps
        self.step_size = step_size
        self.noise_std = noise_std
        self.replay_fraction = replay_fraction
        self.replay_unfilled = replay_unfilled
        self.register_buffer(
            'replay_video', torch.zeros(buffer_size, num_frames, embed_dim)
        )
        self.register_buffer(
            'replay_text', torch.zeros(buffer_size, embed_dim)
        )
        self.register_buffer('replay_fill', torch.zeros((), dtype=torch.int64))
        self.replay_video: Tensor
        self.replay_text: Tensor
        self.replay_fill: Tensor

    @property
    def buffer_size(self) -> int:
        """Entries of the replay buffer."""
        return len(self.replay_video)

    def start(self, size: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Start ``size`` chains, frames ``(B, F, D)`` and text ``(B, D)``."""
        frame_shape = tuple(self.replay_video.shape[1:])
        text_shape = tuple(self.replay_text.shape[1:])
        like = self.replay_video
        fill = int(self.replay_fill)
        if fill == 0:
            return (
                2 * noise.uniform((size, *frame_shape), like) - 1,
                2 * noise.uniform((size, *text_shape), like) - 1,
            )
        candidates = self.buffer_size if self.replay_unfilled else fill
        order = noise.permutation(candidates, like)
        chosen = order[: int(self.replay_fraction * size)]
        fresh = size - len(chosen)
        frames = noise.uniform((fresh, *frame_shape), like)
        text = noise.uniform((fresh, *text_shape), like)
        return (
            torch.cat([self.replay_video[chosen], frames]),
            torch.cat([self.replay_text[chosen], text]),
        )

    @torch.no_grad()
    def store(self, frames: Tensor, text: Tensor) -> None:
        """Push pairs in front of the buffer, which keeps its size."""
        fill = int(self.replay_fill) + len(frames)
        size = self.buffer_size
        self.replay_video.copy_(torch.cat([frames, self.replay_video])[:size])
        self.replay_text.copy_(torch.cat([text, self.replay_text])[:size])
        self.replay_fill.fill_(min(fill, size))

    def sample(
        self,
        energy: Callable[[Tensor, Tensor], Tensor],
        size: int,
        noise: NoiseSource,
    ) -> tuple[Tensor, Tensor]:
        """Run chains and, in training, store where they end.

        Args:
            energy (Callable): Energies ``(B,)`` of frames ``(B, F, D)`` and
                text ``(B, D)``, parameters taken as constants.
            size (int): Number of pairs ``B``.
            noise (NoiseSource): Random numbers. Order of the draws: the start
                (permutation first, then frames, then text), and for each step
                frames, then text.

        Returns:
            tuple[Tensor, Tensor]: Constants, frames ``(B, F, D)`` and text
            ``(B, D)``.
        """
        frames, text = self.start(size, noise)
        for _ in range(self.num_steps):
            with torch.enable_grad():
                frames.requires_grad_(True)
                text.requires_grad_(True)
                total = energy(frames, text).sum()
                frame_gradient, text_gradient = torch.autograd.grad(
                    total, (frames, text)
                )
            frames = (
                frames.detach()
                - self.step_size * frame_gradient
                + self.noise_std * noise.normal(tuple(frames.shape), frames)
            )
            text = (
                text.detach()
                - self.step_size * text_gradient
                + self.noise_std * noise.normal(tuple(text.shape), text)
            )
        if self.training:
            self.store(frames, text)
        return frames, text
