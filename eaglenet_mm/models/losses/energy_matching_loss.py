"""Energy-aware matching (EAM): loss, energy functions and sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from eaglenet_mm.models.layers.keyed_random import KeyedRandom
from eaglenet_mm.models.losses.score_losses import (
    PairLabels,
    Share,
    check_same_video,
)
from eaglenet_mm.registry import MODELS

#: Reductions of frame energies to one energy per video.
FRAME_REDUCTIONS = ('mean', 'max', 'min')
#: Bytes of the MLP's hidden layer per chunk, by device type.
CHUNK_BYTES = {'cpu': 4 * 2**20, 'cuda': 256 * 2**20}


@MODELS.register_module()
class EnergyMatchingLoss(BaseModule):
    """Contrast of the energy of matching pairs with that of other pairs.

    Implements energy-aware matching of `EagleNet
    <https://arxiv.org/abs/2603.25267>`_::

        l(E+, E) = mean(E+) - mean(E) + regularization * (mean(E+^2) + mean(E^2))
        loss     = (l(E+, E-) + l(E+, Es)) / 2

    with the energies ``E+`` of the ``B`` matching pairs, ``E-`` of the
    ``B (B - 1)`` other pairs and ``Es`` of ``B`` pairs sampled by Langevin
    dynamics. Without other pairs, as in a batch of one, the loss is
    ``l(E+, Es)``.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video.
        energy (dict, optional): Config of the energy without ``embed_dim``.
            Default: ``dict(type='MLPEnergy')``.
        sampler (dict, optional): Options of :class:`LangevinSampler`.
        regularization (float): Weight of the squared energies. Default: 1.
        same_video (str): Treatment of non-matching pairs of the same video:
            in ``E-`` (``'negative'``, as in the release), in ``E+``
            (``'positive'``) or in neither (``'ignore'``).
            Default: ``'negative'``.

    Raises:
        ValueError: If ``same_video`` is unknown.

    Example:
        >>> from eaglenet_mm.models.layers import KeyedRandom
        >>> from eaglenet_mm.models.losses import KeyedNoise
        >>> loss = EnergyMatchingLoss(embed_dim=32, num_frames=8)
        >>> noise = KeyedNoise(KeyedRandom(seed=0), 'energy')
        >>> loss(video.frames[:3], text.embeds, noise).shape
        torch.Size([])
    """  # noqa: E501

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        energy: dict | None = None,
        sampler: dict | None = None,
        regularization: float = 1.0,
        same_video: str = 'negative',
    ) -> None:
        super().__init__()
        self.same_video = check_same_video(same_video)
        energy = energy or dict(type='MLPEnergy')
        self.energy = MODELS.build({**energy, 'embed_dim': embed_dim})
        self.sampler = LangevinSampler(
            num_frames, embed_dim, **(sampler or {})
        )
        self.regularization = regularization

    def all_pairs(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """Compute the energies of all pairs, shape ``(Bt, Bv)``.

        Takes frames ``(Bv, F, D)``, text ``(Bt, D)`` and a mask ``(Bv, F)``.
        """
        sides = self.energy.sides(frames, text)
        return self.energy.rows(*sides, frame_mask)

    def contrast(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute ``l`` from the means of ``E`` and ``E^2`` of two sets."""
        squares = low[1] + high[1]
        return low[0] - high[0] + self.regularization * squares

    def forward(
        self,
        frames: Tensor,
        text: Tensor,
        noise: NoiseSource,
        frame_mask: Tensor | None = None,
        share: Share | None = None,
        positives: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss and, in training mode, update the replay buffer.

        Args:
            frames (Tensor): Not normalised, shape ``(b, F, D)``.
            text (Tensor): Matching texts, not normalised, shape ``(b, D)``.
            noise (NoiseSource): Random numbers of the sampler.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(b, F)``. Default: None, all are real.
            share (Share, optional): Rows of the joint batch that the inputs
                hold. Default: None, all of them.
            positives (Tensor, optional): Pairs of the same video, see
                :class:`PairLabels`. Default: None, those of the share.

        Returns:
            Tensor: Scalar loss of the joint batch.

        Raises:
            ValueError: If the numbers of texts and videos differ, the frames
                do not fit the replay buffer, ``positives`` do not fit, or
                ``same_video`` needs them and they are missing.
        """
        expected = tuple(self.sampler.replay_video.shape[1:])
        if tuple(frames.shape[1:]) != expected:
            raise ValueError(
                'The energy loss was built for frames of shape (B, '
                f'{expected[0]}, {expected[1]}), but got '
                f'{tuple(frames.shape)}. Set num_frames and embed_dim of the '
                'loss to those of the head.'
            )
        if len(frames) != len(text):
            raise ValueError(
                f'Energies need one text per video, but got {len(text)} texts '
                f'and {len(frames)} videos.'
            )
        share = share or Share(range(len(text)), lambda x: x)
        gather = share.gather
        # squared energies of raw features overflow half precision
        with torch.autocast(frames.device.type, enabled=False):
            if frames.dtype in (torch.float16, torch.bfloat16):
                frames, text = frames.float(), text.float()
            frame_side, text_side = self.energy.sides(
                frames, text.to(frames.dtype)
            )
            if frame_mask is not None:
                frame_mask = gather(frame_mask)
            energies = self.energy.rows(
                gather(frame_side), text_side, frame_mask
            )  # (b, B)
            labels = PairLabels(energies, self.same_video, positives, share)
            pairs = self.sampler.sample(
                self.energy.gradient, energies.shape[1], noise, share.rows
            )
            if self.training:
                self.sampler.store(*(gather(x) for x in pairs))
            sampled = gather(self.energy.matching(*pairs))  # (B,)
            high = torch.stack([sampled.mean(), sampled.square().mean()])
            positive, negative = self._means(energies, labels)
            loss = self.contrast(positive[:2], high)
            both = (loss + self.contrast(positive[:2], negative[:2])) / 2
            return torch.where(negative[2] > 0, both, loss)

    @staticmethod
    def _means(energies: Tensor, labels: PairLabels) -> Tensor:
        """Mean, mean square and count of positives and negatives, ``(2, 3)``.

        Over the joint batch; zeros without any pair.
        """
        rows = slice(None)
        positive, ignored = labels.positive(rows), labels.ignored(rows)
        if positive is None:
            positive = torch.zeros_like(energies, dtype=torch.bool)
            labels.share.matching(positive).fill_(True)
        negative = ~positive if ignored is None else ~(positive | ignored)
        sums = []
        for kind in (positive, negative):
            own = energies.masked_fill(~kind, 0.0)
            number = kind.sum().to(energies.dtype)
            sums.append(torch.stack([own.sum(), own.square().sum(), number]))
        total = labels.share.sum(torch.stack(sums))  # (2, 3)
        number = total[:, 2:]
        return torch.cat([total[:, :2] / number.clamp(min=1), number], dim=1)


class FrameTextEnergy(nn.Module, ABC):
    """Base class of energy functions, low for matching pairs.

    Subclasses project frames and texts once (:meth:`sides`) and combine the
    projections per pair (:meth:`combine`, :meth:`rows`).

    Args:
        embed_dim (int): Feature width ``D``.
        reduction (str): Reduction over the frames, ``'mean'``, ``'max'`` or
            ``'min'``. Default: ``'mean'``.

    Raises:
        ValueError: If ``reduction`` is unknown.

    Example:
        >>> class Product(FrameTextEnergy):
        ...     def sides(self, frames, text):
        ...         return frames, text
        >>> Product(32).matching(video.frames[:3], text.embeds).shape
        torch.Size([3])
    """

    def __init__(self, embed_dim: int, reduction: str = 'mean') -> None:
        super().__init__()
        if reduction not in FRAME_REDUCTIONS:
            raise ValueError(
                f'reduction must be one of {FRAME_REDUCTIONS}, but is '
                f'{reduction!r}.'
            )
        self.embed_dim = embed_dim
        self.reduction = reduction

    @abstractmethod
    def sides(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Project frames ``(Bv, F, D)`` and texts ``(Bt, D)``."""

    def combine(self, frames: Tensor, text: Tensor) -> Tensor:
        """Energies of projections that broadcast to ``(..., F, D)``."""
        return -(frames * text).sum(dim=-1)

    def rows(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None
    ) -> Tensor:
        """Energies of all pairs of projections, shape ``(Bt, Bv)``."""
        energy = -torch.einsum('td,vfd->tvf', text, frames)
        return reduce_frames(energy, self.reduction, frame_mask)

    def matching(
        self,
        frames: Tensor,
        text: Tensor,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the energies of matching pairs, shape ``(B,)``.

        Takes frames ``(B, F, D)``, text ``(B, D)`` and a mask ``(B, F)``.
        """
        frames, text = self.sides(frames, text)
        energy = self.combine(frames, text.unsqueeze(1))
        return reduce_frames(energy, self.reduction, frame_mask)

    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient of the energies of matching pairs.

        With respect to frames ``(B, F, D)`` and text ``(B, D)``, detached. By
        autograd; the energies below override this with the closed form.
        """
        with torch.enable_grad():
            frames = frames.detach().requires_grad_()
            text = text.detach().requires_grad_()
            total = self.matching(frames, text).sum()
            by_frames, by_text = torch.autograd.grad(total, (frames, text))
        return by_frames, by_text


@MODELS.register_module()
class MLPEnergy(FrameTextEnergy):
    """Energy of an MLP, ``w2 . relu(W1 [v_f; t] + b1) + b2``.

    Computed as ``W1 [v; t] = W1v v + W1t t``, which projects frames and texts
    once instead of once per pair.

    Args:
        embed_dim (int): Feature width ``D``.
        reduction (str): See :class:`FrameTextEnergy`. Default: ``'mean'``.

    Example:
        >>> energy = MLPEnergy(32, reduction='min')
        >>> energy.matching(video.frames[:3], text.embeds).shape
        torch.Size([3])
    """

    def __init__(self, embed_dim: int, reduction: str = 'mean') -> None:
        super().__init__(embed_dim, reduction)
        self.hidden = nn.Linear(2 * embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, 1)

    def sides(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Project frames and texts by their half of the first layer."""
        by_frame, by_text = self.hidden.weight.split(self.embed_dim, dim=1)
        return (
            F.linear(frames, by_frame),
            F.linear(text, by_text, self.hidden.bias),
        )

    def combine(self, frames: Tensor, text: Tensor) -> Tensor:
        """Apply ReLU and the second layer to the sum of projections."""
        hidden = (frames + text).relu()
        return hidden @ self.output.weight[0] + self.output.bias

    def rows(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None
    ) -> Tensor:
        """Energies of all pairs of projections, shape ``(Bt, Bv)``."""
        energy = _PairEnergies.apply(frames, text, self.output.weight[0])
        return reduce_frames(
            energy + self.output.bias, self.reduction, frame_mask
        )

    @torch.no_grad()
    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient; see the base class."""
        output = self.output.weight[0]
        by_frame, by_text = self.hidden.weight.split(self.embed_dim, dim=1)
        hidden, of_text = self.sides(frames, text)
        hidden += of_text.unsqueeze(1)
        if self.reduction == 'mean':
            change = hidden.gt_(0).mul_(output / frames.shape[1])
        else:
            shares = _frame_shares(hidden.relu() @ output, self.reduction)
            change = hidden.gt_(0).mul_(output).mul_(shares.unsqueeze(-1))
        return change @ by_frame, change.sum(1) @ by_text


class _UnitEnergy(FrameTextEnergy):
    """Energy ``-f(t) . v_f`` of unit vectors ``t`` and ``v_f``."""

    @abstractmethod
    def _factor(self, unit_text: Tensor) -> Tensor:
        """``f(t)``, shape ``(B, D)``."""

    @abstractmethod
    def _factor_gradient(self, gradient: Tensor) -> Tensor:
        """Backward of :meth:`_factor`."""

    def sides(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalise frames and texts, and apply ``f`` to the texts."""
        factor = self._factor(F.normalize(text, dim=-1))
        return F.normalize(frames, dim=-1), factor

    @torch.no_grad()
    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient; see the base class."""
        unit, factor = self.sides(frames, text)
        energy = -(unit @ factor.unsqueeze(-1)).squeeze(-1)  # (B, F)
        shares = _frame_shares(energy, self.reduction)
        by_unit = -factor.unsqueeze(1) * shares.unsqueeze(-1)  # (B, F, D)
        by_factor = -(shares.unsqueeze(1) @ unit).squeeze(1)  # (B, D)
        by_unit_text = self._factor_gradient(by_factor)
        return (
            _through_normalize(by_unit, unit, frames),
            _through_normalize(by_unit_text, F.normalize(text, dim=-1), text),
        )


@MODELS.register_module()
class CosineEnergy(_UnitEnergy):
    """Energy ``-cos(t, v_f)``, without parameters.

    Differs from the release, which crashes when training with this energy.

    Args:
        embed_dim (int): Feature width ``D``.
        reduction (str): See :class:`FrameTextEnergy`. Default: ``'mean'``.

    Example:
        >>> energy = CosineEnergy(32).matching(video.frames[:3], text.embeds)
        >>> bool((energy.abs() <= 1).all())
        True
    """

    def _factor(self, unit_text: Tensor) -> Tensor:
        return unit_text

    def _factor_gradient(self, gradient: Tensor) -> Tensor:
        return gradient


@MODELS.register_module()
class BilinearEnergy(_UnitEnergy):
    """Energy ``-(B t + b) . v_f`` of unit vectors ``t`` and ``v_f``.

    Args:
        embed_dim (int): Feature width ``D``.
        reduction (str): See :class:`FrameTextEnergy`. Default: ``'mean'``.

    Example:
        >>> energy = BilinearEnergy(32)
        >>> energy.matching(video.frames[:3], text.embeds).shape
        torch.Size([3])
    """

    def __init__(self, embed_dim: int, reduction: str = 'mean') -> None:
        super().__init__(embed_dim, reduction)
        self.transform = nn.Linear(embed_dim, embed_dim)

    def _factor(self, unit_text: Tensor) -> Tensor:
        return self.transform(unit_text)

    def _factor_gradient(self, gradient: Tensor) -> Tensor:
        return gradient @ self.transform.weight


def reduce_frames(
    energy: Tensor, reduction: str, frame_mask: Tensor | None
) -> Tensor:
    """Reduce frame energies ``(.., F)``, with a broadcastable mask."""
    if reduction == 'mean':
        if frame_mask is None:
            return energy.mean(dim=-1)
        return (energy * frame_mask).sum(dim=-1) / frame_mask.sum(dim=-1)
    # gather, so that the gradient of ties goes to a single frame
    ranked = energy if reduction == 'max' else -energy
    if frame_mask is not None:
        ranked = ranked.masked_fill(~frame_mask, float('-inf'))
    index = ranked.argmax(dim=-1, keepdim=True)
    return energy.gather(-1, index).squeeze(-1)


def _frame_shares(energy: Tensor, reduction: str) -> Tensor:
    """Gradient of the reduction with respect to ``energy``, ``(B, F)``."""
    if reduction == 'mean':
        return torch.full_like(energy, 1.0 / energy.shape[-1])
    ranked = energy if reduction == 'max' else -energy
    chosen = ranked.argmax(dim=-1, keepdim=True)
    return torch.zeros_like(energy).scatter_(-1, chosen, 1.0)


def _through_normalize(gradient: Tensor, unit: Tensor, x: Tensor) -> Tensor:
    """Backward of ``unit = F.normalize(x, dim=-1)``."""
    norm = x.norm(dim=-1, keepdim=True)
    along = (gradient * unit).sum(dim=-1, keepdim=True)
    # F.normalize clamps the norm, which is then a constant
    along = torch.where(norm > 1e-12, along, torch.zeros_like(along))
    return (gradient - along * unit) / norm.clamp(min=1e-12)


class _PairEnergies(Function):
    """``weight . relu(frames + text)`` of all pairs, ``(Bt, Bv, F)``.

    Takes projected frames ``(Bv, F, D)`` and texts ``(Bt, D)``, and recomputes
    the hidden layer in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, text: Tensor, weight: Tensor
    ) -> Tensor:
        ctx.save_for_backward(frames, text, weight)
        energies = frames.new_empty(len(text), *frames.shape[:2])
        for rows, hidden in _chunks(frames, text):
            torch.add(frames, text[rows, None, None], out=hidden)
            torch.matmul(hidden.relu_(), weight, out=energies[rows])
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames, text, weight = ctx.saved_tensors
        flat = frames.flatten(0, 1)  # (Bv * F, D)
        gradient = gradient.flatten(1)  # (Bt, Bv * F)
        by_frames, by_text = torch.zeros_like(flat), torch.empty_like(text)
        by_weight = torch.zeros_like(weight)
        for rows, memory in _chunks(flat, text):  # (n, Bv * F, D)
            part = gradient[rows]
            hidden = torch.add(flat, text[rows, None], out=memory).relu_()
            by_weight += part.flatten() @ hidden.flatten(0, 1)
            active = hidden.sign_()
            by_text[rows] = (part.unsqueeze(1) @ active).squeeze(1)
            for one, mask in zip(part, active, strict=True):
                by_frames.addcmul_(mask, one.unsqueeze(-1))
        return (
            by_frames.mul_(weight).view_as(frames),
            by_text * weight,
            by_weight,
        )


def _chunks(frames: Tensor, text: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Split the texts so that the hidden layer of a chunk stays small.

    Yields a slice of texts and a buffer ``(n, *frames.shape)``, which all
    chunks share; allocating one for each would fragment the heap.
    """
    budget = CHUNK_BYTES.get(frames.device.type, CHUNK_BYTES['cuda'])
    row = max(1, frames.numel() * frames.element_size())
    step = max(1, min(budget // row, len(text)))
    memory = frames.new_empty(step, *frames.shape)
    for start in range(0, len(text), step):
        rows = slice(start, min(start + step, len(text)))
        yield rows, memory[: rows.stop - start]


class KeyedNoise:
    """Keyed random numbers of the sampler, numbered in order of the draws.

    ``rows`` are the chains of the joint batch to draw for. Any object with
    these three methods can replace it.

    Args:
        random (KeyedRandom): Source of random numbers.
        purpose (str): Prefix of the draws' names.

    Example:
        >>> noise = KeyedNoise(KeyedRandom(0), 'energy')
        >>> noise.normal(range(2), (32,), text.embeds).shape
        torch.Size([2, 32])
    """

    #: Normal draws made at once, since a single one is small.
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
        """Draw a permutation of ``range(size)``, for the joint batch."""
        return self.random.permutation(self._name(), size, like)


#: Type of the sampler's random numbers.
NoiseSource = KeyedNoise


class LangevinSampler(BaseModule):
    """Langevin sampler of low-energy pairs, with a replay buffer.

    Iterates ``x <- x - step_size * dE/dx + noise_std * N(0, 1)`` on the
    frames and the text of each pair, without gradient through the chain. The
    first chains start from ``U[-1, 1)``; later ones from up to
    ``int(replay_fraction * B)`` buffer entries and, for the rest, from
    ``U[0, 1)``. Results are pushed to the front of the buffer. Section 3.3 of
    `EagleNet <https://arxiv.org/abs/2603.25267>`_.

    Differs from the release: buffer entries that were never filled, all
    zeros, are not replayed unless ``replay_unfilled`` is set. Energies that
    normalise have an unbounded gradient at zero; in the release such entries
    jump to about 1e11 and stay in the buffer. The number of filled entries is
    part of the state dict. Batch sizes may vary between calls.

    Args:
        num_frames (int): Frames ``F`` per video.
        embed_dim (int): Feature width ``D``.
        num_steps (int): Steps per chain. Default: 20.
        step_size (float): Factor of the gradient. Default: 1.
        noise_std (float): Standard deviation of the noise. Default: 0.005.
        buffer_size (int): Capacity of the replay buffer. Default: 500.
        replay_fraction (float): Maximum share of a batch that is replayed.
            Default: 0.95.
        replay_unfilled (bool): Replay unfilled entries, as in the release.
            Default: False.

    Raises:
        ValueError: If an option is out of range.

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
                'replay_fraction must be between 0 and 1, but is '
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
        """Initialise chains; see :meth:`sample`."""
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
        """Push pairs to the front of the replay buffer."""
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
        """Run the chains.

        Args:
            gradient (Callable): Gradients of the energy with respect to
                frames ``(b, F, D)`` and text ``(b, D)``.
            size (int): Number of chains ``B`` in the joint batch.
            noise (NoiseSource): Random numbers, drawn in this order:
                permutation, frames and text of the start; then frames and
                text of each step.
            rows (range, optional): Chains to run, ascending. Default: None,
                all of them.

        Returns:
            tuple[Tensor, Tensor]: Detached frames ``(b, F, D)`` and text
            ``(b, D)``. Pass them to :meth:`store` in training.
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
