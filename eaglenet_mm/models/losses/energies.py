"""Energies of a video and a text."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.losses.mlp_pair_energies import mlp_pair_energies
from eaglenet_mm.registry import MODELS

#: Ways to bring the energies of the frames to one energy a video.
FRAME_REDUCTIONS = ('mean', 'max', 'min')


def reduce_frames(
    energy: Tensor, reduction: str, frame_mask: Tensor | None
) -> Tensor:
    """Bring energies of frames to one a video.

    Args:
        energy (Tensor): Shape ``(..., F)``.
        reduction (str): One of :data:`FRAME_REDUCTIONS`.
        frame_mask (Tensor, optional): True for real frames; its leading axes
            broadcast with those of the energy. Shape ``(..., F)``.
    """
    if reduction == 'mean':
        if frame_mask is None:
            return energy.mean(dim=-1)
        return (energy * frame_mask).sum(dim=-1) / frame_mask.sum(dim=-1)
    # the gradient of a tie goes to one frame, so values come from an index
    sign = 1.0 if reduction == 'max' else -1.0
    ranked = energy * sign
    if frame_mask is not None:
        ranked = ranked.masked_fill(~frame_mask, float('-inf'))
    index = ranked.argmax(dim=-1, keepdim=True)
    return energy.gather(-1, index).squeeze(-1)


class FrameTextEnergy(nn.Module):
    """Base of the energies: matching pairs low, others high.

    Subclasses prepare each side once (:meth:`sides`) and combine prepared
    sides (:meth:`combine`), so that all pairs cost little more than their
    combination.

    Args:
        embed_dim (int): Width ``D``.
        reduction (str): How the frames' energies become one, ``'mean'``,
            ``'max'`` or ``'min'``. Default: ``'mean'``.

    Raises:
        ValueError: If ``reduction`` is none of these.
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

    def sides(
        self, frames: Tensor, text: Tensor, constant: bool
    ) -> tuple[Tensor, Tensor]:
        """Prepare ``(Bv, F, D)`` and ``(Bt, D)``, each on its own.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            text (Tensor): Shape ``(Bt, D)``.
            constant (bool): Take the parameters as constants.
        """
        raise TypeError(f'{type(self).__name__} does not define sides().')

    def combine(self, frames: Tensor, text: Tensor, constant: bool) -> Tensor:
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
        constant: bool = False,
    ) -> Tensor:
        """Compute the energies of video ``i`` and text ``i``, shape ``(B,)``.

        Args:
            frames (Tensor): Shape ``(B, F, D)``.
            text (Tensor): Shape ``(B, D)``.
            frame_mask (Tensor, optional): Shape ``(B, F)``.
            constant (bool): Take the parameters as constants.
                Default: False.
        """
        frames, text = self.sides(frames, text, constant)
        energy = self.combine(frames, text.unsqueeze(1), constant)
        return reduce_frames(energy, self.reduction, frame_mask)

    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives of the energies of matching pairs.

        What a step of the sampler needs. Subclasses write it out; this one
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
            total = self.matching(frames, text, constant=True).sum()
            by_frames, by_text = torch.autograd.grad(total, (frames, text))
        return by_frames, by_text

    def frame_shares(self, energy: Tensor) -> Tensor:
        """Derivative of the reduction by the energies of frames ``(B, F)``."""
        if self.reduction == 'mean':
            return torch.full_like(energy, 1.0 / energy.shape[-1])
        ranked = energy if self.reduction == 'max' else -energy
        chosen = ranked.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(energy).scatter_(-1, chosen, 1.0)


@MODELS.register_module()
class MLPEnergy(FrameTextEnergy):
    """Energy of a network: ``w2 . relu(W1 [v_f; t] + b1) + b2``.

    The product is split, ``W1 [v; t] = W1v v + W1t t``, so each side is
    projected once.
    """

    def __init__(self, embed_dim: int, reduction: str = 'mean') -> None:
        super().__init__(embed_dim, reduction)
        self.hidden = nn.Linear(2 * embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, 1)

    def sides(
        self, frames: Tensor, text: Tensor, constant: bool
    ) -> tuple[Tensor, Tensor]:
        """Project each side with its half of the first layer."""
        weight, bias = _held(self.hidden, constant)
        return (
            F.linear(frames, weight[:, : self.embed_dim]),
            F.linear(text, weight[:, self.embed_dim :], bias),
        )

    def combine(self, frames: Tensor, text: Tensor, constant: bool) -> Tensor:
        """Take the sum of the sides through the second layer."""
        weight, bias = _held(self.output, constant)
        return (frames + text).relu() @ weight[0] + bias

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
        weight, output = self.hidden.weight, self.output.weight[0]
        width = self.embed_dim
        hidden = F.linear(frames, weight[:, :width])
        hidden += F.linear(text, weight[:, width:], self.hidden.bias)[:, None]
        if self.reduction == 'mean':
            change = hidden.gt_(0).mul_(output / frames.shape[1])
        else:
            shares = self.frame_shares(hidden.relu() @ output)
            change = hidden.gt_(0).mul_(output).mul_(shares.unsqueeze(-1))
        return change @ weight[:, :width], change.sum(1) @ weight[:, width:]


@MODELS.register_module()
class BilinearEnergy(FrameTextEnergy):
    """Energy ``-(B t + b) . v_f`` of unit vectors ``t`` and ``v_f``."""

    def __init__(self, embed_dim: int, reduction: str = 'mean') -> None:
        super().__init__(embed_dim, reduction)
        self.transform = nn.Linear(embed_dim, embed_dim)

    def sides(
        self, frames: Tensor, text: Tensor, constant: bool
    ) -> tuple[Tensor, Tensor]:
        """Bring both sides to unit length and transform the text."""
        weight, bias = _held(self.transform, constant)
        unit_text = F.normalize(text, dim=-1)
        return F.normalize(frames, dim=-1), F.linear(unit_text, weight, bias)

    @torch.no_grad()
    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives; see the base class."""
        weight, bias = self.transform.weight, self.transform.bias
        unit_text = F.normalize(text, dim=-1)
        frames_gradient, gradient = unit_product_gradient(
            self, frames, F.linear(unit_text, weight, bias)
        )
        return frames_gradient, unit_gradient(
            gradient @ weight, unit_text, text
        )


@MODELS.register_module()
class CosineEnergy(FrameTextEnergy):
    """Energy ``-cos(t, v_f)``; no parameters.

    Differs from the release, where this energy cannot be trained because a
    network that does not exist is asked to change its mode.
    """

    def sides(
        self, frames: Tensor, text: Tensor, constant: bool
    ) -> tuple[Tensor, Tensor]:
        """Bring both sides to unit length."""
        return F.normalize(frames, dim=-1), F.normalize(text, dim=-1)

    @torch.no_grad()
    def gradient(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives; see the base class."""
        unit_text = F.normalize(text, dim=-1)
        frames_gradient, gradient = unit_product_gradient(
            self, frames, unit_text
        )
        return frames_gradient, unit_gradient(gradient, unit_text, text)


def unit_gradient(gradient: Tensor, unit: Tensor, x: Tensor) -> Tensor:
    """Take a derivative by ``F.normalize(x, dim=-1)`` through it."""
    norm = x.norm(dim=-1, keepdim=True)
    along = (gradient * unit).sum(dim=-1, keepdim=True)
    # below its bound the norm is a constant
    along = torch.where(norm > 1e-12, along, torch.zeros_like(along))
    return (gradient - along * unit) / norm.clamp(min=1e-12)


def unit_product_gradient(
    energy: FrameTextEnergy, frames: Tensor, text: Tensor
) -> tuple[Tensor, Tensor]:
    """Derivatives of ``-text . unit frames``, reduced over the frames.

    Args:
        energy (FrameTextEnergy): Says how frames are reduced.
        frames (Tensor): Shape ``(B, F, D)``.
        text (Tensor): The factor of the frames, shape ``(B, D)``.

    Returns:
        tuple[Tensor, Tensor]: By ``frames`` and by ``text``.
    """
    unit = F.normalize(frames, dim=-1)
    shares = energy.frame_shares(-(unit @ text.unsqueeze(-1)).squeeze(-1))
    gradient = -text.unsqueeze(1) * shares.unsqueeze(-1)
    by_text = -(shares.unsqueeze(1) @ unit).squeeze(1)
    return unit_gradient(gradient, unit, frames), by_text


def _held(layer: nn.Linear, constant: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias, cut from the graph if they are constants."""
    hold: Callable[[Tensor], Tensor] = (
        Tensor.detach if constant else lambda x: x
    )
    return hold(layer.weight), hold(layer.bias)
