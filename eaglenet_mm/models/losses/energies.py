"""Energies of a video and a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from eaglenet_mm.registry import MODELS

#: Ways to bring the energies of the frames to one energy a video.
FRAME_REDUCTIONS = ('mean', 'max', 'min')
#: Bytes of the MLP's hidden layer computed at once, by type of device.
CHUNK_BYTES = {'cpu': 4 * 2**20, 'cuda': 256 * 2**20}


class FrameTextEnergy(nn.Module, ABC):
    """Energy of a video and a text; the base of all energies.

    Matching pairs shall have a low energy, others a high one. A subclass
    prepares each side once (:meth:`sides`) and combines prepared sides
    (:meth:`combine`, :meth:`rows`), so that all pairs cost little more than
    their combination.

    Args:
        embed_dim (int): Width ``D``.
        reduction (str): How the frames' energies become one, ``'mean'``,
            ``'max'`` or ``'min'``. Default: ``'mean'``.

    Raises:
        ValueError: If ``reduction`` is none of these.

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
        """Prepare ``(Bv, F, D)`` and ``(Bt, D)``, each on its own."""

    def combine(self, frames: Tensor, text: Tensor) -> Tensor:
        """Combine prepared sides of broadcasting shape ``(..., F, D)``."""
        return -(frames * text).sum(dim=-1)

    def rows(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None
    ) -> Tensor:
        """Combine prepared sides to all pairs, shape ``(Bt, Bv)``."""
        energy = -torch.einsum('td,vfd->tvf', text, frames)
        return reduce_frames(energy, self.reduction, frame_mask)

    def matching(
        self,
        frames: Tensor,
        text: Tensor,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the energies of video ``i`` and text ``i``, shape ``(B,)``.

        Args:
            frames (Tensor): Shape ``(B, F, D)``.
            text (Tensor): Shape ``(B, D)``.
            frame_mask (Tensor, optional): Shape ``(B, F)``. Default: None.
        """
        frames, text = self.sides(frames, text)
        energy = self.combine(frames, text.unsqueeze(1))
        return reduce_frames(energy, self.reduction, frame_mask)

    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives of the energies of matching pairs.

        What a step of the sampler needs. Our energies write it out; this
        leaves it to autograd.

        Args:
            frames (Tensor): Shape ``(B, F, D)``.
            text (Tensor): Shape ``(B, D)``.

        Returns:
            tuple[Tensor, Tensor]: Shapes ``(B, F, D)`` and ``(B, D)``,
            without graph.
        """
        with torch.enable_grad():
            frames = frames.detach().requires_grad_()
            text = text.detach().requires_grad_()
            total = self.matching(frames, text).sum()
            by_frames, by_text = torch.autograd.grad(total, (frames, text))
        return by_frames, by_text


@MODELS.register_module()
class MLPEnergy(FrameTextEnergy):
    """Energy of a network: ``w2 . relu(W1 [v_f; t] + b1) + b2``.

    The product is split, ``W1 [v; t] = W1v v + W1t t``, so each side is
    projected once.

    Args:
        embed_dim (int): Width ``D``.
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
        """Project each side with its half of the first layer."""
        by_frame, by_text = self.hidden.weight.split(self.embed_dim, dim=1)
        return (
            F.linear(frames, by_frame),
            F.linear(text, by_text, self.hidden.bias),
        )

    def combine(self, frames: Tensor, text: Tensor) -> Tensor:
        """Take the sum of the sides through the second layer."""
        hidden = (frames + text).relu()
        return hidden @ self.output.weight[0] + self.output.bias

    def rows(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None
    ) -> Tensor:
        """Combine prepared sides to all pairs, shape ``(Bt, Bv)``."""
        energy = mlp_pair_energies(frames, text, self.output.weight[0])
        return reduce_frames(
            energy + self.output.bias, self.reduction, frame_mask
        )

    @torch.no_grad()
    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives; see the base class."""
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


@MODELS.register_module()
class CosineEnergy(FrameTextEnergy):
    """Energy ``-cos(t, v_f)``; no parameters.

    Differs from the release, where this energy cannot be trained because a
    network that does not exist is asked to change its mode.

    Args:
        embed_dim (int): Width ``D``.
        reduction (str): See :class:`FrameTextEnergy`. Default: ``'mean'``.

    Example:
        >>> energy = CosineEnergy(32).matching(video.frames[:3], text.embeds)
        >>> bool((energy.abs() <= 1).all())
        True
    """

    def _factor(self, unit_text: Tensor) -> Tensor:
        """What unit frames are multiplied with, shape ``(B, D)``."""
        return unit_text

    def _factor_gradient(self, gradient: Tensor) -> Tensor:
        """Derivative by the unit text from that by the factor."""
        return gradient

    def sides(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Bring both sides to unit length."""
        factor = self._factor(F.normalize(text, dim=-1))
        return F.normalize(frames, dim=-1), factor

    @torch.no_grad()
    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives; see the base class."""
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
class BilinearEnergy(CosineEnergy):
    """Energy ``-(B t + b) . v_f`` of unit vectors ``t`` and ``v_f``.

    Args:
        embed_dim (int): Width ``D``.
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
    """Bring energies of frames ``(.., F)`` to one a video.

    The mask is True for real frames; its leading axes broadcast.
    """
    if reduction == 'mean':
        if frame_mask is None:
            return energy.mean(dim=-1)
        return (energy * frame_mask).sum(dim=-1) / frame_mask.sum(dim=-1)
    # the gradient of a tie goes to one frame, so values come from an index
    ranked = energy if reduction == 'max' else -energy
    if frame_mask is not None:
        ranked = ranked.masked_fill(~frame_mask, float('-inf'))
    index = ranked.argmax(dim=-1, keepdim=True)
    return energy.gather(-1, index).squeeze(-1)


def _frame_shares(energy: Tensor, reduction: str) -> Tensor:
    """Derivative of the reduction by the energies of frames ``(B, F)``."""
    if reduction == 'mean':
        return torch.full_like(energy, 1.0 / energy.shape[-1])
    ranked = energy if reduction == 'max' else -energy
    chosen = ranked.argmax(dim=-1, keepdim=True)
    return torch.zeros_like(energy).scatter_(-1, chosen, 1.0)


def _through_normalize(gradient: Tensor, unit: Tensor, x: Tensor) -> Tensor:
    """Take a derivative by ``F.normalize(x, dim=-1)`` through it."""
    norm = x.norm(dim=-1, keepdim=True)
    along = (gradient * unit).sum(dim=-1, keepdim=True)
    # below its bound the norm is a constant
    along = torch.where(norm > 1e-12, along, torch.zeros_like(along))
    return (gradient - along * unit) / norm.clamp(min=1e-12)


def mlp_pair_energies(frames: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """``weight . relu(frames + text)`` of all pairs, ``(Bt, Bv, F)``.

    Of projected frames ``(Bv, F, D)``, projected texts with the bias ``(Bt,
    D)`` and the second layer ``(D,)``; the hidden layer is never kept.
    """
    return _PairEnergies.apply(frames, text, weight)


class _PairEnergies(Function):
    """See :func:`mlp_pair_energies`."""

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
    """Cut the texts so that the hidden layer of a chunk stays small.

    Gives texts and memory ``(n, *frames.shape)``, the same for all chunks:
    fresh blocks of aligned memory leave holes that the C library does not
    fill again.
    """
    budget = CHUNK_BYTES.get(frames.device.type, CHUNK_BYTES['cuda'])
    row = max(1, frames.numel() * frames.element_size())
    step = max(1, min(budget // row, len(text)))
    memory = frames.new_empty(step, *frames.shape)
    for start in range(0, len(text), step):
        rows = slice(start, min(start + step, len(text)))
        yield rows, memory[: rows.stop - start]
