"""The training objective of EagleNet, with rows shared by processes."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.eaglenet_pairs import OwnPairs
from eaglenet_mm.models.heads.seeded_head import SeededHead
from eaglenet_mm.models.layers import KeyedRandom
from eaglenet_mm.models.losses import KeyedNoise, NoiseSource
from eaglenet_mm.structures import TextFeatures, VideoFeatures


class EagleNetObjective(SeededHead):
    """Losses of EagleNet, section 3.4 of the paper.

    The part of :class:`EagleNetHead` that only training needs::

        L = match(scores) + support_weight * match(support scores)
            + energy_weight * energy(video, text)
            + energy_support_weight * energy(video, support)
    """

    # set by the head
    support_weight: float
    energy_weight: float
    energy_support_weight: float
    loss_energy: Any
    use_frame_mask: bool

    def support_text(
        self, text: Tensor, centre: Tensor, radius: Tensor
    ) -> Tensor:
        """Push sentences towards the videos, by as much as the radius allows.

        Args:
            text (Tensor): Sentences, shape ``(Bt, D)``.
            centre (Tensor): Mean over all texts of the pooled videos of unit
                length, shape ``(Bv, D)``.
            radius (Tensor): Of the candidates, shape ``(Bv, Bt, D)``.

        Returns:
            Tensor: Support texts of unit length, shape ``(Bv, Bt, D)``.
        """
        direction = F.normalize(centre.unsqueeze(1) - text, dim=-1)
        return F.normalize(direction * radius + text, dim=-1)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the losses of the joint batch.

        Each process prepares its own texts and videos, scores the rows of its
        own texts, and runs its own share of the energies and of the sampler;
        see the base class.

        Returns:
            dict[str, Tensor]: ``loss_match``, and as far as they are in use
            ``loss_support``, ``loss_energy`` and ``loss_energy_support``;
            ``pos_score`` and ``neg_score`` to watch.
        """
        batch = self.open_batch(text, video)
        share, random = batch.share, batch.random
        pairs = OwnPairs(self, batch)
        needs_support = bool(self.support_weight or self.energy_support_weight)
        scores, support_scores, supports = pairs.scores(needs_support)
        losses = self.match_losses(scores, share)
        if self.support_weight:
            losses['loss_support'] = self.support_weight * self.match(
                support_scores, share
            )
        if self.loss_energy is None:
            return losses
        mask = video.frame_mask if self.use_frame_mask else None
        if self.energy_weight:
            losses['loss_energy'] = self.energy_weight * self.loss_energy(
                video.frames,
                text.embeds,
                self.energy_noise(random, 'energy'),
                mask,
                share,
            )
        if self.energy_support_weight:
            loss = self.loss_energy(
                video.frames,
                supports,
                self.energy_noise(random, 'support energy'),
                mask,
                share,
            )
            losses['loss_energy_support'] = self.energy_support_weight * loss
        return losses

    def energy_noise(self, random: KeyedRandom, purpose: str) -> NoiseSource:
        """Give the energy loss its random numbers."""
        return KeyedNoise(random, purpose)
