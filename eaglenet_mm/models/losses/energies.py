"""Energies of a video and a text."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        energy = self.combine(frames, text[:, None, None], False)
        return reduce_frames(energy, self.reduction, frame_mask)


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


def _held(layer: nn.Linear, constant: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias, cut from the graph if they are constants."""
    hold: Callable[[Tensor], Tensor] = (
        Tensor.detach if constant else lambda x: x
    )
    return hold(layer.weight), hold(layer.bias)
