"""Stochastic text: candidates around a sentence, spread by the video."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.precision import at_least_float32


class StochasticText(nn.Module):
    """Radius of the candidates of every text-video pair.

    Implements the similarity-aware radius of `T-MASS
    <https://arxiv.org/abs/2403.17998>`_ as `EagleNet
    <https://arxiv.org/abs/2603.25267>`_ uses it: ``log R_ij = W s_ij + b``
    with ``s_ij`` the cosines of sentence ``i`` and the frames of video ``j``.
    A candidate is ``t_i + noise * R_ij``.

    Differs from the release: an all-zero frame has cosine 0 with every
    sentence. The release then leaves the frames of the whole batch
    unnormalised; :meth:`unit_frames` does so on request.

    Args:
        embed_dim (int): Width ``D``.
        num_frames (int): Frames of a video, ``F``.
    """

    def __init__(self, embed_dim: int, num_frames: int) -> None:
        super().__init__()
        self.radius = nn.Linear(num_frames, embed_dim)
        nn.init.eye_(self.radius.weight)
        nn.init.zeros_(self.radius.bias)

    @staticmethod
    def unit_frames(
        frames: Tensor,
        frame_mask: Tensor | None = None,
        keep_if_zero: bool = False,
    ) -> Tensor:
        """Bring frames to unit length.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor, optional): True for real frames; the others
                become zero and so have cosine 0. Shape ``(Bv, F)``.
            keep_if_zero (bool): Return all frames as they are if any of them
                is zero, as the release does. Default: False.

        Returns:
            Tensor: Shape ``(Bv, F, D)``.
        """
        norm = frames.norm(dim=-1, keepdim=True)
        if keep_if_zero and bool((norm == 0).any()):
            return frames
        unit = frames / norm.masked_fill(norm == 0, 1.0)
        if frame_mask is not None:
            unit = unit * frame_mask.unsqueeze(-1)
        return unit

    def forward(self, text: Tensor, unit_frames: Tensor) -> Tensor:
        """Compute the logarithm of the radius of every pair.

        Args:
            text (Tensor): Sentences of any length, shape ``(Bt, D)``.
            unit_frames (Tensor): Of :meth:`unit_frames`, shape
                ``(Bv, F, D)``.

        Returns:
            Tensor: Shape ``(Bv, Bt, D)``.
        """
        unit_text = F.normalize(text, dim=-1)
        cosines = unit_frames.flatten(0, 1) @ unit_text.T  # (Bv * F, Bt)
        cosines = cosines.unflatten(0, unit_frames.shape[:2])
        return F.linear(
            cosines.transpose(1, 2),
            self.radius.weight.to(cosines.dtype),
            self.radius.bias.to(cosines.dtype),
        )

    def of_matching(self, text: Tensor, unit_frames: Tensor) -> Tensor:
        """Compute the logarithm of the radius of matching pairs alone.

        Args:
            text (Tensor): Sentences of any length, shape ``(B, D)``.
            unit_frames (Tensor): Of their videos, shape ``(B, F, D)``.

        Returns:
            Tensor: Shape ``(B, D)``.
        """
        unit_text = F.normalize(text, dim=-1).unsqueeze(-1)
        cosines = (unit_frames @ unit_text).squeeze(-1)  # (B, F)
        return F.linear(
            cosines,
            self.radius.weight.to(cosines.dtype),
            self.radius.bias.to(cosines.dtype),
        )


def stochastic_cosines(
    text: Tensor,
    radius: Tensor,
    noise: Tensor,
    unit_video: Tensor,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosines of the stochastic texts of pairs, none of which is built.

    With ``t_k = t + e_k * R`` the products ``t_k . p`` and ``|t_k|^2`` are
    sums over channels that are linear in ``e_k`` and its square.

    Args:
        text (Tensor): Shape ``(Bt, D)``.
        radius (Tensor): Shape ``(Bv, Bt, D)``.
        noise (Tensor): Shape ``(K, D)`` or ``(Bv, Bt, K, D)``.
        unit_video (Tensor): Shape ``(Bv, Bt, D)`` or ``(Bv, 1, D)``.
        lengths (Tensor, optional): Of an earlier call. Default: None.

    Returns:
        tuple[Tensor, Tensor]: Cosines and lengths, ``(Bv, Bt, K)``.
    """

    def along_noise(values: Tensor, factors: Tensor) -> Tensor:
        if factors.dim() == 2:
            return values @ factors.T
        return (factors @ values.unsqueeze(-1)).squeeze(-1)

    if lengths is None:
        squares = (
            text.square().sum(dim=-1)[:, None]
            + 2 * along_noise(radius * text, noise)
            + along_noise(radius.square(), noise.square())
        )
        lengths = squares.clamp(min=1e-24).sqrt()
    products = (unit_video * text).sum(dim=-1, keepdim=True) + along_noise(
        radius * unit_video, noise
    )
    return products / lengths, lengths


def row_cosines(text: Tensor, pooled: Tensor) -> Tensor:
    """Cosine of each text with its row of videos, ``(Bt, Bv)``."""
    return F.cosine_similarity(
        text.unsqueeze(1), at_least_float32(pooled), dim=-1, eps=1e-12
    )
