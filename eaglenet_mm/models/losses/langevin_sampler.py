"""Langevin dynamics with a replay buffer, over video-text pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.layers.keyed_random import KeyedRandom


class KeyedNoise:
    """Random numbers of the sampler, keyed, in order of drawing.

    Rows say which chains of the joint batch the numbers are for. Any object
    with these three methods may take its place.

    Args:
        random (KeyedRandom): Source.
        purpose (str): Names what they are drawn for.

    Example:
        >>> noise = KeyedNoise(KeyedRandom(0), 'energy')
        >>> noise.normal(range(2), (32,), text.embeds).shape
        torch.Size([2, 32])
    """

    #: Draws of normal numbers made at once: a draw of a step is small.
    AT_ONCE = 5

    def __init__(self, random: KeyedRandom, purpose: str) -> None:
        self.random = random
        self.purpose = purpose
        self.draws = 0
        self._ahead: dict[tuple[range, tuple[int, ...]], list[Tensor]] = {}

    def _name(self) -> str:
        self.draws += 1
        return f'{self.purpose} {self.draws}'

    def uniform(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """Draw from ``U[0, 1)``, shape ``(len(rows), *shape)``."""
        return self.random.uniform(
            self._name(), torch.tensor(rows, dtype=torch.int64), shape, like
        )

    def normal(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """Draw from ``N(0, 1)``, shape ``(len(rows), *shape)``."""
        ahead = self._ahead.setdefault((rows, shape), [])
        if not ahead:
            keys = torch.tensor(rows, dtype=torch.int64)
            numbers = self.random.normal(
                self._name(), keys, (self.AT_ONCE, *shape), like
            )
            ahead.extend(numbers.unbind(dim=1))
        return ahead.pop(0)

    def permutation(self, size: int, like: Tensor) -> Tensor:
        """Draw a permutation of ``size`` numbers, for the joint batch."""
        return self.random.permutation(self._name(), size, like)


#: What a sampler asks for random numbers, as a type.
NoiseSource = KeyedNoise


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

    Example:
        >>> from eaglenet_mm.models.losses import MLPEnergy
        >>> sampler = LangevinSampler(num_frames=8, embed_dim=32)
        >>> noise = KeyedNoise(KeyedRandom(0), 'energy')
        >>> frames, texts = sampler.sample(MLPEnergy(32).gradient, 3, noise)
        >>> sampler.store(frames, texts)
        >>> frames.shape, int(sampler.replay_fill)
        (torch.Size([3, 8, 32]), 3)
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
        self.buffer_size = buffer_size
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

    def start(
        self, size: int, noise: NoiseSource, rows: range
    ) -> tuple[Tensor, Tensor]:
        """Start chains; arguments and shapes as those of :meth:`sample`."""
        fill = int(self.replay_fill)
        order = torch.zeros(0, dtype=torch.int64)
        if fill:
            if self.replay_unfilled:
                fill = self.buffer_size
            order = noise.permutation(fill, self.replay_video)
            order = order[: int(self.replay_fraction * size)]
        chosen = order[rows.start : len(order) : rows.step]
        fresh = rows[len(chosen) :]

        def start(buffer: Tensor) -> Tensor:
            drawn = noise.uniform(fresh, tuple(buffer.shape[1:]), buffer)
            return torch.cat(
                [buffer[chosen], drawn if fill else 2 * drawn - 1]
            )

        return start(self.replay_video), start(self.replay_text)

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
