"""The training objective of EagleNet, with rows shared by processes."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmengine.dist import broadcast
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import BasePairHead
from eaglenet_mm.models.heads.eaglenet_pairs import OwnPairs
from eaglenet_mm.models.layers import KeyedRandom, StochasticText
from eaglenet_mm.models.losses import KeyedNoise, NoiseSource
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import (
    gather_features,
    gather_with_grad,
    own_rows,
    sum_with_grad,
)


class EagleNetObjective(BasePairHead):
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
    stochastic_text: StochasticText
    random_key: Tensor
    key_is_shared = False

    def support_text(
        self, text: Tensor, unit_frames: Tensor, centre: Tensor
    ) -> Tensor:
        """Push sentences towards the videos, by as much as the radius allows.

        Args:
            text (Tensor): Sentences, shape ``(Bt, D)``.
            unit_frames (Tensor): Shape ``(Bv, F, D)``.
            centre (Tensor): Mean over all texts of the pooled videos of unit
                length, shape ``(Bv, D)``.

        Returns:
            Tensor: Support texts of unit length, shape ``(Bt, Bv, D)``.
        """
        radius = self.stochastic_text(text, unit_frames).exp()
        direction = F.normalize(centre - text.unsqueeze(1), dim=-1)
        return F.normalize(direction * radius + text.unsqueeze(1), dim=-1)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the losses of the joint batch.

        Each process scores the rows of its own texts; see the base class.

        Returns:
            dict[str, Tensor]: ``loss_match``, and as far as they are in use
            ``loss_support``, ``loss_energy`` and ``loss_energy_support``;
            ``pos_score`` and ``neg_score`` to watch.
        """
        self.check_batch(text, video)
        random = self._next_random()
        texts = gather_with_grad(text.embeds)
        videos = gather_features(VideoFeatures(video.frames, video.frame_mask))
        state = self.prepare_video(videos)
        rows = own_rows(len(texts))
        pairs = OwnPairs(self, texts, state, rows, random)
        scores, centre = pairs.scores_and_centre()
        losses = self.match_losses(gather_with_grad(scores))
        supports = None
        if self.support_weight or self.energy_support_weight:
            centre = sum_with_grad(centre) / len(texts)
            support_scores, supports = pairs.support_scores(centre)
            if self.support_weight:
                losses['loss_support'] = self.support_weight * self.match(
                    gather_with_grad(support_scores)
                )
        if self.loss_energy is None:
            return losses
        if self.energy_weight:
            losses['loss_energy'] = self.energy_weight * self.loss_energy(
                videos.frames,
                texts,
                self.energy_noise(random, 'energy'),
                state.frame_mask,
            )
        if supports is not None and self.energy_support_weight:
            loss = self.loss_energy(
                videos.frames,
                gather_with_grad(supports),
                self.energy_noise(random, 'support energy'),
                state.frame_mask,
            )
            losses['loss_energy_support'] = self.energy_support_weight * loss
        return losses

    def energy_noise(self, random: KeyedRandom, purpose: str) -> NoiseSource:
        """Give the energy loss its random numbers."""
        return KeyedNoise(random, purpose)

    def _next_random(self) -> KeyedRandom:
        """Random numbers of this step, the same in every process."""
        if not self.key_is_shared:
            # processes may have been seeded differently
            broadcast(self.random_key)
            self.key_is_shared = True
        random = KeyedRandom(*self.random_key.tolist())
        if self.training:
            self.random_key[1] += 1
        return random
