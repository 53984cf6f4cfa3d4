"""Langevin dynamics with a replay buffer, over video-text pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from mmengine.model import BaseModule
from torch import Tensor


class NoiseSource(Protocol):
    """Where the sampler takes its random numbers from.

    Rows say which chains of the joint batch the numbers are for.
    """

    def uniform(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """Draw from ``U[0, 1)``, shape ``(len(rows), *shape)``."""

    def normal(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """Draw from ``N(0, 1)``, shape ``(len(rows), *shape)``."""

    def permutation(self, size: int, like: Tensor) -> Tensor:
        """Draw a permutation of ``size`` numbers, for the joint batch."""


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

    def start(
        self, size: int, noise: NoiseSource, rows: range
    ) -> tuple[Tensor, Tensor]:
        """Start chains of a joint batch.

        Args:
            size (int): Chains of the joint batch ``B``.
            noise (NoiseSource): Random numbers.
            rows (range): The chains wanted.

        Returns:
            tuple[Tensor, Tensor]: Frames ``(b, F, D)`` and text ``(b, D)``.
        """
        fill = int(self.replay_fill)
        parts = []
        replayed = 0
        order = torch.zeros(0, dtype=torch.int64)
        if fill:
            candidates = self.buffer_size if self.replay_unfilled else fill
            order = noise.permutation(candidates, self.replay_video)
            order = order[: int(self.replay_fraction * size)]
            replayed = len(order)
        chosen = order[rows.start : replayed : rows.step]
        fresh = rows[len(chosen) :]
        for buffer in (self.replay_video, self.replay_text):
            start = noise.uniform(fresh, tuple(buffer.shape[1:]), buffer)
            if not fill:
                start = 2 * start - 1
            parts.append(torch.cat([buffer[chosen], start]))
        return parts[0], parts[1]

    @torch.no_grad()
    def store(self, frames: Tensor, text: Tensor) -> None:
        """Push pairs in front of the buffer, which keeps its size."""
        fill = int(self.replay_fill) + len(frames)
        size = self.buffer_size
        self.replay_video.copy_(torch.cat([frames, self.replay_video])[:size])
        self.replay_text.copy_(torch.cat([text, self.replay_text])[:size])
        self.replay_fill.fill_(min(fill, size))

    @torch.no_grad()
    def sample(
        self,
        gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        size: int,
        noise: NoiseSource,
        rows: range | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run chains.

        Args:
            gradient (Callable): Derivatives of the energies of frames
                ``(b, F, D)`` and text ``(b, D)`` by both.
            size (int): Chains of the joint batch ``B``.
            noise (NoiseSource): Random numbers. Order of the draws: the start
                (permutation first, then frames, then text), and for each step
                frames, then text.
            rows (range, optional): The chains to run, ascending. Default:
                None, all of them.

        Returns:
            tuple[Tensor, Tensor]: Constants, frames ``(b, F, D)`` and text
            ``(b, D)``, to be given to :meth:`store` in training.
        """
        rows = range(size) if rows is None else rows
        frames, text = self.start(size, noise, rows)
        for _ in range(self.num_steps):
            slopes = gradient(frames, text)
            for x, slope in zip((frames, text), slopes, strict=True):
                drawn = noise.normal(rows, tuple(x.shape[1:]), x)
                x.sub_(slope, alpha=self.step_size)
                x.add_(drawn, alpha=self.noise_std)
        return frames, text
