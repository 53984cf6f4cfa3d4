"""Counter-based random numbers, independent of process and chunking."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
#: Words hashed at once on a CPU, to stay in its cache.
_BLOCK = 1 << 18


def mix_key(*parts: int) -> int:
    """Hash integers into one seed, with the finaliser of SplitMix64."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def _split_keys(base: int, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Two int32 words per key, each of the shape of ``keys``."""
    state = keys.numpy().astype(np.uint64)
    with np.errstate(over='ignore'):
        state = state * np.uint64(_GOLDEN) + np.uint64(base)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(
            0xBF58476D1CE4E5B9
        )
        state = (state ^ (state >> np.uint64(27))) * np.uint64(
            0x94D049BB133111EB
        )
        state = state ^ (state >> np.uint64(31))
    words = torch.from_numpy(state.view(np.int32).reshape(*keys.shape, 2))
    return words[..., 0], words[..., 1]


def _word(value: int) -> Tensor:
    """32-bit constant as a tensor, to avoid a conversion on each use."""
    return torch.tensor(value - 2**32 if value >= 2**31 else value).int()


_LOW_16, _LOW_17 = _word(0xFFFF), _word(0x1FFFF)
_FACTORS = _word(0x7FEB352D), _word(0x846CA68B)
_SHIFT_8, _SHIFT_15, _SHIFT_16 = _word(8), _word(15), _word(16)


def _mix_words(words: Tensor, spare: Tensor | None = None) -> Tensor:
    """Hash int32 words in place with Chris Wellons' 'lowbias32'."""
    # torch has no logical shift for int32: mask the sign bits
    spare = torch.empty_like(words) if spare is None else spare
    torch.bitwise_right_shift(words, _SHIFT_16, out=spare)
    words.bitwise_xor_(spare.bitwise_and_(_LOW_16)).mul_(_FACTORS[0])
    torch.bitwise_right_shift(words, _SHIFT_15, out=spare)
    words.bitwise_xor_(spare.bitwise_and_(_LOW_17)).mul_(_FACTORS[1])
    torch.bitwise_right_shift(words, _SHIFT_16, out=spare)
    return words.bitwise_xor_(spare.bitwise_and_(_LOW_16))


class KeyedRandom:
    """Random numbers keyed by seed, step, purpose and key.

    The numbers of a key, which stands for a text or a pair of the joint
    batch, do not depend on process, chunk or device, and are the same when
    the backward pass recomputes a chunk. They are hashes of their position,
    so all can be computed in parallel.

    Args:
        seed (int): Seed of the run.
        step (int): Training step. Default: 0.

    Example:
        >>> random, keys = KeyedRandom(seed=1), torch.tensor([5, 9])
        >>> one = random.uniform('noise', keys, (3,), like=text.embeds)
        >>> two = random.uniform('noise', keys[1:], (3,), like=text.embeds)
        >>> torch.equal(one[1:], two)
        True
    """

    def __init__(self, seed: int, step: int = 0) -> None:
        self.seed = seed
        self.step = step

    def words(
        self, purpose: str, keys: Tensor, count: int, device: torch.device
    ) -> Iterator[tuple[slice, Tensor]]:
        """Draw ``count`` 32-bit words per key, in blocks of keys.

        Yields the slice of the keys and their words, int32 ``(keys, count)``,
        in a buffer that the next block overwrites.
        """
        base = mix_key(self.seed, self.step, zlib.crc32(purpose.encode()))
        first, second = (
            word.to(device).unsqueeze(1) for word in _split_keys(base, keys)
        )
        places = torch.arange(count, dtype=torch.int32, device=device)
        places = _mix_words(places.mul_(0x61C88647).add_(0x3C6EF372))
        step = max(1, len(keys))
        if device.type == 'cpu':
            step = min(step, max(1, _BLOCK // max(1, count)))
        memory = places.new_empty(2, step, count)
        for start in range(0, len(keys), step):
            block = slice(start, min(start + step, len(keys)))
            words, spare = memory[:, : block.stop - start]
            torch.bitwise_xor(places, first[block], out=words)
            yield block, _mix_words(words.add_(second[block]), spare)

    def uniform(
        self, purpose: str, keys: Tensor, shape: Sequence[int], like: Tensor
    ) -> Tensor:
        """Draw from ``U[0, 1)`` with 24 random bits.

        Args:
            purpose (str): Name of the draw.
            keys (Tensor): Non-negative integers on the CPU, shape ``(n,)``.
            shape (Sequence[int]): Shape per key.
            like (Tensor): Sets dtype and device.

        Returns:
            Tensor: Shape ``(n, *shape)``.
        """
        count = math.prod(shape)
        numbers = torch.empty(len(keys), count, device=like.device)
        for block, words in self.words(purpose, keys, count, like.device):
            numbers[block] = words.bitwise_right_shift_(_SHIFT_8)
            numbers[block].mul_(2.0**-24).add_(0.5)
        return numbers.view(len(keys), *shape).to(like.dtype)

    def normal(
        self, purpose: str, keys: Tensor, shape: Sequence[int], like: Tensor
    ) -> Tensor:
        """Draw from ``N(0, 1)``; see :meth:`uniform`."""
        count = math.prod(shape)
        half = (count + 1) // 2
        uniform = self.uniform(purpose, keys, (2, half), like.float())
        # avoid the logarithm of zero
        radius = uniform[:, 0].add_(2.0**-25).log_().mul_(-2).sqrt_()
        angle = uniform[:, 1].mul_(2 * math.pi)
        sine = angle.sin().mul_(radius)
        torch.mul(radius, angle.cos_(), out=uniform[:, 0])
        uniform[:, 1] = sine
        numbers = uniform.flatten(1)[:, :count]
        return numbers.reshape(len(keys), *shape).to(like.dtype)

    def dropout_mask(
        self,
        purpose: str,
        keys: Tensor,
        shape: Sequence[int],
        rate: float,
        like: Tensor,
    ) -> Tensor:
        """Draw a scaled dropout mask; see :meth:`uniform`.

        ``rate`` is the probability of 0, rounded to 16 bits. All other
        entries are ``1 / (1 - rate)``.
        """
        count = math.prod(shape)
        dropped = round(rate * 65536)
        mask = like.new_empty(len(keys), count)
        blocks = self.words(purpose, keys, (count + 1) // 2, like.device)
        for block, words in blocks:
            halves = words.view(torch.int16)[:, :count]
            torch.ge(halves, dropped - 32768, out=mask[block])
            mask[block].mul_(65536 / (65536 - dropped))
        return mask.view(len(keys), *shape)

    def permutation(self, purpose: str, size: int, like: Tensor) -> Tensor:
        """Draw a permutation of ``range(size)``."""
        key = mix_key(self.seed, self.step, zlib.crc32(purpose.encode()))
        generator = torch.Generator().manual_seed(key)
        return torch.randperm(size, generator=generator).to(like.device)


def kept_share(rate: float) -> float:
    """Exact probability that :meth:`KeyedRandom.dropout_mask` keeps."""
    return 1.0 - round(rate * 65536) / 65536


def check_dropout(rate: float) -> None:
    """Raise an error if the rate is not in [0, 1)."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(
            f'dropout must be at least 0 and below 1, but is {rate}.'
        )


class PairRandom:
    """Random numbers for the pairs of a chunk.

    Args:
        random (KeyedRandom): Source of random numbers.
        rows (range): Positions of the texts in the joint batch.
        columns (range): Positions of the videos in the joint batch.

    Example:
        >>> random = PairRandom(KeyedRandom(1), range(3), range(4))
        >>> random.normal('noise', 32, like=text.embeds).shape
        torch.Size([4, 3, 32])
    """

    def __init__(
        self, random: KeyedRandom, rows: range, columns: range
    ) -> None:
        self.random = random
        self.rows = rows
        self.columns = columns
        videos = torch.tensor(columns, dtype=torch.int64).unsqueeze(1)
        texts = torch.tensor(rows, dtype=torch.int64)
        self.keys = (videos * 2**32 + texts).flatten()
        self._shape = (len(columns), len(rows))

    @classmethod
    def matching(cls, random: KeyedRandom, places: range) -> PairRandom:
        """Random numbers for the matching pairs only, as ``(B, 1)`` pairs."""
        matching = cls(random, places[:1], places)
        diagonal = torch.tensor(places, dtype=torch.int64)
        matching.keys = diagonal * 2**32 + diagonal
        return matching

    def _shaped(self, numbers: Tensor) -> Tensor:
        return numbers.unflatten(0, self._shape)

    def uniform(self, purpose: str, *shape: int, like: Tensor) -> Tensor:
        """Draw from ``U[0, 1)``, shape ``(videos, texts, *shape)``."""
        return self._shaped(
            self.random.uniform(purpose, self.keys, shape, like)
        )

    def normal(self, purpose: str, *shape: int, like: Tensor) -> Tensor:
        """Draw from ``N(0, 1)``, shape ``(videos, texts, *shape)``."""
        return self._shaped(
            self.random.normal(purpose, self.keys, shape, like)
        )

    def dropout_mask(
        self, purpose: str, *shape: int, rate: float, like: Tensor
    ) -> Tensor | None:
        """Draw a scaled dropout mask, None for a rate of 0."""
        if rate == 0.0:
            return None
        return self._shaped(
            self.random.dropout_mask(purpose, self.keys, shape, rate, like)
        )
