"""Energies of all pairs of a two-layer network, with little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

#: Bytes of the hidden layer computed at once, by type of device.
CHUNK_BYTES = {'cpu': 4 * 2**20, 'cuda': 256 * 2**20}


class _PairEnergies(Function):
    """``weight . relu(frames + text)``; the hidden layer is never kept."""

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

    Yields:
        tuple[slice, Tensor]: Texts, and memory for their hidden layer, shape
        ``(n, *frames.shape)``. It is the same for all chunks: fresh blocks of
        aligned memory leave holes that the C library does not fill again.
    """
    budget = CHUNK_BYTES.get(frames.device.type, CHUNK_BYTES['cuda'])
    row = max(1, frames.numel() * frames.element_size())
    step = max(1, min(budget // row, len(text)))
    memory = frames.new_empty(step, *frames.shape)
    for start in range(0, len(text), step):
        rows = slice(start, min(start + step, len(text)))
        yield rows, memory[: rows.stop - start]


def mlp_pair_energies(frames: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """Compute ``weight . relu(frames + text)`` of all pairs.

    Args:
        frames (Tensor): Projected frames, shape ``(Bv, F, D)``.
        text (Tensor): Projected texts with the bias, shape ``(Bt, D)``.
        weight (Tensor): Of the second layer, shape ``(D,)``.

    Returns:
        Tensor: Shape ``(Bt, Bv, F)``.
    """
    return _PairEnergies.apply(frames, text, weight)
