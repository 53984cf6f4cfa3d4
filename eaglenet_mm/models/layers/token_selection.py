"""Soft selection of the tokens of a frame, as TS2-Net does it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from eaglenet_mm.models.precision import float32_layer_norm


class _SoftTopK(Function):
    """Mean over noise samples of the indicator of the k largest scores.

    The gradient is that of the perturbed maximum: an entry of the indicator
    moves with its own score alone, by the mean of indicator times noise over
    sigma.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, noise: Tensor, count: int, sigma: float
    ) -> Tensor:
        # scores (N, M), noise (N or 1, samples, M)
        places = (scores.unsqueeze(1) + sigma * noise).topk(count, dim=-1)
        chosen = places.indices.sort(dim=-1).values  # (N, samples, k)
        shape = (len(scores), count, scores.shape[-1])
        share = 1.0 / noise.shape[1]
        indicator = scores.new_zeros(shape)
        moved = scores.new_zeros(shape)
        # one pass a rank: indicators of all samples are never held at once
        for rank in range(count):
            index = chosen[..., rank]  # (N, samples)
            values = noise.expand(len(scores), -1, -1).gather(
                -1, index.unsqueeze(-1)
            )
            indicator[:, rank].scatter_add_(
                -1, index, torch.full_like(index, share, dtype=scores.dtype)
            )
            moved[:, rank].scatter_add_(
                -1, index, values.squeeze(-1) * (share / sigma)
            )
        ctx.save_for_backward(moved)
        return indicator

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (moved,) = ctx.saved_tensors
        return (gradient * moved).sum(dim=1), None, None, None


class TokenSelector(nn.Module):
    """Keep the class token of each frame and a mix of its best patches.

    Implements the token selection of `TS2-Net
    <https://arxiv.org/abs/2207.07852>`_: a score for each token from itself
    and the class token, and a perturbed top-k of the patches.

    Args:
        embed_dim (int): Width ``D``, even.
        num_selected (int): Patches kept of a frame. Default: 3.
        sigma (float): Deviation of the noise on the scores. Default: 0.05.
    """

    def __init__(
        self, embed_dim: int, num_selected: int = 3, sigma: float = 0.05
    ) -> None:
        super().__init__()
        half = embed_dim // 2
        self.num_selected = num_selected
        self.sigma = sigma
        self.norm = nn.LayerNorm(embed_dim)
        self.inner = nn.Linear(embed_dim, half, bias=False)
        self.outer = nn.Linear(2 * half, half, bias=False)
        self.score = nn.Linear(half, 1, bias=False)
        for layer in (self.inner, self.outer, self.score):
            nn.init.normal_(layer.weight, std=0.02)

    def scores(self, tokens: Tensor) -> Tensor:
        """Score every token, the class token included.

        Args:
            tokens (Tensor): Class token first, shape ``(N, T, D)``.

        Returns:
            Tensor: In [-1, 1], shape ``(N, T)``.
        """
        normed = float32_layer_norm(self.norm, tokens).to(
            self.inner.weight.dtype
        )
        hidden = F.gelu(self.inner(normed))
        first = hidden[:, :1].expand_as(hidden)
        hidden = F.gelu(self.outer(torch.cat([hidden, first], dim=-1)))
        return self.score(hidden).squeeze(-1).tanh()

    def forward(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """Select tokens of every frame.

        Args:
            tokens (Tensor): Class token first, shape ``(N, T, D)``.
            noise (Tensor): Standard normal, shape ``(N, samples, T - 1)``, or
                ``(1, samples, T - 1)`` for all frames.

        Returns:
            Tensor: Class token and the selected ones, in the order of the
            frame, shape ``(N, 1 + k, D)``.
        """
        indicator = self.indicator(self.scores(tokens)[:, 1:], noise)
        chosen = indicator.to(tokens.dtype) @ tokens[:, 1:]
        return torch.cat([tokens[:, :1], chosen], dim=1)

    def indicator(self, scores: Tensor, noise: Tensor) -> Tensor:
        """Soft indicator of the best patches, shape ``(N, k, T - 1)``."""
        return _SoftTopK.apply(
            scores.float() if scores.dtype.itemsize < 4 else scores,
            noise.to(scores.device),
            self.num_selected,
            self.sigma,
        )
