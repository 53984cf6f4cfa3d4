"""Random numbers that depend on what they are for, not on who draws them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix_key(*parts: int) -> int:
    """Mix integers into one seed (the finaliser of SplitMix64)."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class KeyedRandom:
    """Random numbers by seed, step, purpose and row.

    A draw for row ``i`` is the same whichever process makes it, in whichever
    chunk the row lies, and whether it is drawn once or again while a chunk is
    recomputed in backward. Numbers are drawn in float32 on the device asked
    for; devices differ from one another.

    Args:
        seed (int): Seed of the run.
        step (int): Number of the training step.
    """

    def __init__(self, seed: int, step: int = 0) -> None:
        self.seed = seed
        self.step = step

    def _generator(
        self, purpose: str, row: int, device: torch.device
    ) -> torch.Generator:
        key = mix_key(self.seed, self.step, zlib.crc32(purpose.encode()), row)
        return torch.Generator(device=device).manual_seed(key)

    def uniform(
        self,
        purpose: str,
        shape: Sequence[int],
        like: Tensor,
        row: int = 0,
    ) -> Tensor:
        """Draw from ``U[0, 1)``, in the type and on the device of ``like``."""
        generator = self._generator(purpose, row, like.device)
        return torch.rand(*shape, generator=generator, device=like.device).to(
            like.dtype
        )

    def normal(
        self,
        purpose: str,
        shape: Sequence[int],
        like: Tensor,
        row: int = 0,
    ) -> Tensor:
        """Draw from ``N(0, 1)``, in the type and on the device of ``like``."""
        generator = self._generator(purpose, row, like.device)
        return torch.randn(*shape, generator=generator, device=like.device).to(
            like.dtype
        )

    def permutation(self, purpose: str, size: int, like: Tensor) -> Tensor:
        """Draw a permutation of ``size`` numbers."""
        generator = self._generator(purpose, 0, like.device)
        return torch.randperm(size, generator=generator, device=like.device)

    def keep_mask(
        self,
        purpose: str,
        rows: range,
        shape: Sequence[int],
        rate: float,
        like: Tensor,
    ) -> Tensor | None:
        """Draw a scaled dropout mask of one block a row.

        Args:
            purpose (str): Names the layer.
            rows (range): Rows of the joint batch, one block for each.
            shape (Sequence[int]): Shape of a block.
            rate (float): Probability of zero.
            like (Tensor): Gives type and device.

        Returns:
            Tensor | None: Zeros and ``1 / (1 - rate)``, shape
            ``(len(rows), *shape)``; None if ``rate`` is 0.
        """
        if rate == 0.0:
            return None
        blocks = [self.uniform(purpose, shape, like, row) for row in rows]
        return (torch.stack(blocks) >= rate).to(like.dtype).div_(1.0 - rate)
