"""DRL's channel decorrelation regularisation."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.layers.keyed_random import KeyedRandom
from eaglenet_mm.registry import MODELS


@MODELS.register_module()
class ChannelDecorrelationLoss(BaseModule):
    """Regularisation towards decorrelated channels of words and frames.

    Implements CDCR of `DRL <https://arxiv.org/abs/2203.07111>`_ on the tokens
    of matching pairs: words and frames are standardised per channel, and
    their channel correlations ``C`` are pulled towards the identity. As in
    the release, the word-frame and frame-word correlations are averaged
    without transposing one of them::

        diagonal_weight * sum_i (C_ii - 1)^2
            + other_weight * sum_{i != j} C_ij^2

    Args:
        pairing (str): ``'sample'``: a random word and a random frame of each
            pair (mode 1 of the release); ``'best'``: each word with its best
            frame and each frame with its best word (mode 2); ``'weighted'``:
            like ``'best'``, with token weights (mode 3).
            Default: ``'weighted'``.
        diagonal_weight (float): Default: 0.11, as published for WTI.
        other_weight (float): Default: 0.
        loss_weight (float): Weight of the loss. Default: 0.001.
        release_mask (bool): Give padded tokens a similarity of 0, so that
            they can be the best, as in the release. Default: False.

    Raises:
        ValueError: If ``pairing`` is unknown.

    Example:
        >>> from eaglenet_mm.models.heads.wti_head import WeightedTokens
        >>> mask = torch.ones(3, 8, dtype=torch.bool)
        >>> words, frames = torch.randn(2, 3, 8, 32)
        >>> loss = ChannelDecorrelationLoss()(
        ...     WeightedTokens(words, mask / 8, mask),
        ...     WeightedTokens(frames, mask / 8, mask),
        ...     KeyedRandom(seed=0),
        ... )
    """

    def __init__(
        self,
        pairing: str = 'weighted',
        diagonal_weight: float = 0.11,
        other_weight: float = 0.0,
        loss_weight: float = 1e-3,
        release_mask: bool = False,
    ) -> None:
        super().__init__()
        if pairing not in ('sample', 'best', 'weighted'):
            raise ValueError(
                "pairing must be 'sample', 'best' or 'weighted', but got "
                f'{pairing!r}.'
            )
        self.pairing = pairing
        self.diagonal_weight = diagonal_weight
        self.other_weight = other_weight
        self.loss_weight = loss_weight
        self.release_mask = release_mask

    def forward(self, text: Any, video: Any, random: KeyedRandom) -> Tensor:
        """Compute the loss.

        Args:
            text (WeightedTokens): Words of ``B`` texts.
            video (WeightedTokens): Frames of their videos.
            random (KeyedRandom): Random numbers for ``'sample'``.

        Returns:
            Tensor: Scalar loss.
        """
        with torch.autocast(text.embeds.device.type, enabled=False):
            if self.pairing == 'sample':
                words = self.draw(text, random, 'word')
                frames = self.draw(video, random, 'frame')
                correlation = self._correlate(words, frames, len(words))
            else:
                correlation = self._best(text, video)
            diagonal = correlation.diagonal()
            others = correlation.square().sum() - diagonal.square().sum()
            return self.loss_weight * (
                self.diagonal_weight * (diagonal - 1).square().sum()
                + self.other_weight * others
            )

    def draw(self, side: Any, random: KeyedRandom, name: str) -> Tensor:
        """Draw a random real token of each item, shape ``(B, D)``."""
        keys = torch.arange(len(side))
        like = side.embeds.float()
        numbers = random.uniform(name, keys, (1,), like).squeeze(-1)
        return self.take(side, (numbers * 10000).long())

    @staticmethod
    def take(side: Any, numbers: Tensor) -> Tensor:
        """Take the real token ``number % length`` of each item, ``(B, D)``."""
        places = numbers.to(side.mask.device) % side.mask.sum(dim=1)
        # padding may come anywhere, so count the real tokens
        order = side.mask.cumsum(dim=1) - 1
        chosen = (order == places[:, None]) & side.mask
        index = chosen.int().argmax(dim=1)
        return side.embeds[torch.arange(len(index)), index]

    def _best(self, text: Any, video: Any) -> Tensor:
        """Correlate words with their best frames and vice versa."""
        cosines = text.masked() @ video.masked().transpose(1, 2)  # (B, L, F)
        if not self.release_mask:
            real = text.mask.unsqueeze(2) & video.mask.unsqueeze(1)
            cosines = cosines.masked_fill(~real, float('-inf'))
        total: Any = 0
        for own, other, scores in (
            (text, video, cosines),
            (video, text, cosines.transpose(1, 2)),
        ):
            best = scores.argmax(dim=-1, keepdim=True)
            partners = other.embeds.gather(
                1, best.expand(-1, -1, other.embeds.shape[-1])
            )
            rows, columns = own.embeds[own.mask], partners[own.mask]
            if self.pairing == 'weighted':
                part = self._correlate(
                    rows, columns, len(own.mask), own.weights[own.mask]
                )
            else:
                part = self._correlate(rows, columns, len(rows))
            total = total + part / 2
        return total

    @staticmethod
    def _correlate(
        one: Tensor, other: Tensor, count: int, weights: Tensor | None = None
    ) -> Tensor:
        """Correlate the channels of paired rows, ``(D, D)``."""
        if len(one) < 2:
            raise ValueError(
                'ChannelDecorrelationLoss standardises channels over the '
                'batch, so it needs at least two pairs. Raise batch_size, or '
                'set drop_last=True.'
            )
        least = 1e-6  # constant if all tokens share one best partner
        one = (one - one.mean(dim=0)) / one.std(dim=0).clamp(min=least)
        other = (other - other.mean(dim=0)) / other.std(dim=0).clamp(min=least)
        if weights is not None:
            one = one * weights.unsqueeze(-1)
        return one.T @ other / count
