"""Stochastic text: candidates around a sentence, in a video's radius."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom


class StochasticText(nn.Module):
    """Radius of the text candidates of each pair.

    Implements the similarity-aware radius of `T-MASS
    <https://arxiv.org/abs/2403.17998>`_ and `EagleNet
    <https://arxiv.org/abs/2603.25267>`_: ``log R_ij = W s_ij + b``, with
    ``s_ij`` the cosine similarities of sentence ``i`` and the frames of video
    ``j``. Candidates are ``t_i + noise * R_ij``.

    Differs from the release: an all-zero frame has similarity 0 with every
    sentence. The release leaves all frames of such a batch unnormalised; see
    ``keep_if_zero`` of :meth:`unit_frames`.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video.

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
        """L2-normalise frames ``(Bv, F, D)``.

        Args:
            frames (Tensor): Frames.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``; the others are set to zero. Default: None.
            keep_if_zero (bool): Return the frames unchanged if any of them is
                zero, as the release does. Default: False.
        """
        norm = frames.norm(dim=-1, keepdim=True)
        if keep_if_zero and bool((norm == 0).any()):
            return frames
        unit = frames / norm.masked_fill(norm == 0, 1.0)
        if frame_mask is not None:
            unit = unit * frame_mask.unsqueeze(-1)
        return unit

    def forward(self, text: Tensor, unit_frames: Tensor) -> Tensor:
        """Compute the log radius of each pair, shape ``(Bv, Bt, D)``.

        Args:
            text (Tensor): Sentences, need not be normalised, ``(Bt, D)``.
            unit_frames (Tensor): Output of :meth:`unit_frames`.
        """
        unit_text = F.normalize(text, dim=-1)
        cosines = unit_frames.flatten(0, 1) @ unit_text.T  # (Bv * F, Bt)
        cosines = cosines.unflatten(0, unit_frames.shape[:2])
        return self._log_radius(cosines.transpose(1, 2))

    def of_matching(self, text: Tensor, unit_frames: Tensor) -> Tensor:
        """Compute the log radius of matching pairs only, ``(B, D)``."""
        unit_text = F.normalize(text, dim=-1).unsqueeze(-1)
        return self._log_radius((unit_frames @ unit_text).squeeze(-1))

    def _log_radius(self, cosines: Tensor) -> Tensor:
        """``W s + b`` for ``s`` of shape ``(..., F)``, in its precision."""
        weight, bias = self.radius.weight, self.radius.bias
        return F.linear(cosines, weight.to(cosines), bias.to(cosines))


class CandidateNoise:
    """Noise of ``num_candidates`` text candidates, S, by its distribution."""

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
        """Draw the noise table shared by all pairs, ``(S, D)``."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.num_candidates, width)
        if self.prior == 'normal':
            return self.std * torch.randn(*shape, generator=generator)
        return torch.rand(*shape, generator=generator)

    def matching(
        self, random: KeyedRandom, rows: range, like: Tensor
    ) -> Tensor:
        """Draw one noise vector per matching pair, ``(B, D)``."""
        keys, shape = torch.tensor(rows), like.shape[:1]
        if self.prior == 'normal':
            drawn = random.normal('matching text', keys, shape, like)
            return self.std * drawn
        return random.uniform('matching text', keys, shape, like)

    def pairs(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw separate noise for each pair, ``(Bv, Bt, S, D)``."""
        shape = (self.num_candidates, like.shape[-1])
        if self.prior == 'normal':
            return random.normal('candidates', *shape, like=like) * self.std
        return random.uniform('candidates', *shape, like=like)
