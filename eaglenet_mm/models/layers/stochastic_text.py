"""Stochastic text: candidates around a sentence, spread by the video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom


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

    Example:
        >>> stochastic = StochasticText(embed_dim=32, num_frames=8)
        >>> unit = stochastic.unit_frames(video.frames, video.frame_mask)
        >>> stochastic(text.embeds, unit).shape
        torch.Size([4, 3, 32])
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
        return self._log_radius(cosines.transpose(1, 2))

    def of_matching(self, text: Tensor, unit_frames: Tensor) -> Tensor:
        """Compute the same of matching pairs alone, shape ``(B, D)``."""
        unit_text = F.normalize(text, dim=-1).unsqueeze(-1)
        return self._log_radius((unit_frames @ unit_text).squeeze(-1))

    def _log_radius(self, cosines: Tensor) -> Tensor:
        """``W s + b`` of cosines ``(..., F)``, in their precision."""
        weight, bias = self.radius.weight, self.radius.bias
        return F.linear(cosines, weight.to(cosines), bias.to(cosines))


class CandidateNoise:
    """Noise of the text candidates of a chunk of pairs.

    Args:
        prior (str): ``'uniform01'`` or ``'normal'``.
        std (float): Standard deviation of ``'normal'``.
        num_candidates (int): Candidates ``S``.
    """

    PRIORS = ('uniform01', 'normal')

    def __init__(self, prior: str, std: float, num_candidates: int) -> None:
        if prior not in self.PRIORS:
            raise ValueError(
                f'prior must be one of {self.PRIORS}, but is {prior!r}.'
            )
        if num_candidates < 0:
            raise ValueError(
                f'num_candidates cannot be negative, but is {num_candidates}.'
            )
        self.prior = prior
        self.std = std
        self.num_candidates = num_candidates

    def table(self, width: int, seed: int) -> Tensor:
        """Draw the table shared by all pairs, shape ``(S, D)``."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.num_candidates, width)
        if self.prior == 'normal':
            return self.std * torch.randn(*shape, generator=generator)
        return torch.rand(*shape, generator=generator)

    def matching(
        self, random: KeyedRandom, rows: range, like: Tensor
    ) -> Tensor:
        """Draw one vector for each of the matching ``rows``, ``(B, D)``."""
        keys, shape = torch.tensor(rows), like.shape[:1]
        if self.prior == 'normal':
            drawn = random.normal('matching text', keys, shape, like)
            return self.std * drawn
        return random.uniform('matching text', keys, shape, like)

    def pairs(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw noise for each pair on its own, ``(Bv, Bt, S, D)``."""
        shape = (self.num_candidates, like.shape[-1])
        if self.prior == 'normal':
            return random.normal('candidates', *shape, like=like) * self.std
        return random.uniform('candidates', *shape, like=like)
