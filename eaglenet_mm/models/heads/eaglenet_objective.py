"""The training objective of EagleNet, with rows shared by processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eaglenet_mm.models.heads.base_pair_head import BasePairHead
from eaglenet_mm.models.heads.eaglenet_state import (
    EagleNetVideoState,
    PairChunk,
)
from eaglenet_mm.models.layers import KeyedRandom
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
            + energy(video, text) + energy_support_weight * energy(video, support)
    """  # noqa: E501

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
        random = KeyedRandom(*self.random_key.tolist())
        if self.training:
            self.random_key[1] += 1
        texts = gather_with_grad(text.embeds)
        videos = gather_features(VideoFeatures(video.frames, video.frame_mask))
        state = self.prepare_video(videos)
        rows = own_rows(len(texts))
        own = texts[rows.start :: rows.step]
        scores, pooled = self._training_scores(own, state, rows, random)
        losses = self.match_losses(gather_with_grad(scores))
        supports = None
        if self.support_weight or self.energy_support_weight:
            centre = sum_with_grad(pooled.sum(dim=0)) / len(texts)
            support_scores, supports = self._support_scores(
                own, state, pooled, centre, rows
            )
            if self.support_weight:
                losses['loss_support'] = self.support_weight * self.match(
                    gather_with_grad(support_scores)
                )
        losses.update(
            self._energy_losses(videos.frames, texts, supports, state, random)
        )
        return losses

    def energy_noise(self, random: KeyedRandom, purpose: str) -> NoiseSource:
        """Give the energy loss its random numbers."""
        return KeyedNoise(random, purpose)

    def _energy_losses(
        self,
        frames: Tensor,
        texts: Tensor,
        supports: Tensor | None,
        state: EagleNetVideoState,
        random: KeyedRandom,
    ) -> dict[str, Tensor]:
        """Match energies of the texts, and of the support texts."""
        if self.loss_energy is None:
            return {}
        losses = {
            'loss_energy': self.loss_energy(
                frames,
                texts,
                self.energy_noise(random, 'energy'),
                state.frame_mask,
            )
        }
        if supports is not None and self.energy_support_weight:
            loss = self.loss_energy(
                frames,
                gather_with_grad(supports),
                self.energy_noise(random, 'support energy'),
                state.frame_mask,
            )
            losses['loss_energy_support'] = self.energy_support_weight * loss
        return losses

    def _training_scores(
        self,
        text: Tensor,
        state: EagleNetVideoState,
        joint_rows: range,
        random: KeyedRandom,
    ) -> tuple[Tensor, Tensor]:
        """Score own texts, and keep the pooled videos of unit length.

        Returns:
            tuple[Tensor, Tensor]: Scores ``(b, B)`` and pooled videos
            ``(b, B, D)``.
        """
        num_videos = len(state)

        def score(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            chunk = PairChunk(joint_rows[rows], columns, num_videos)
            enriched, pooled = self.enrich_and_pool(
                text[rows],
                state.index_select(columns),
                self.pair_noise(random, chunk, text),
                chunk if self.training else None,
                random,
            )
            pooled = F.normalize(pooled, dim=-1)
            return (F.normalize(enriched, dim=-1) * pooled).sum(-1), pooled

        return self._in_chunks(score, len(text), num_videos)

    def _support_scores(
        self,
        text: Tensor,
        state: EagleNetVideoState,
        pooled: Tensor,
        centre: Tensor,
        joint_rows: range,
    ) -> tuple[Tensor, Tensor]:
        """Score the support texts of own texts.

        Returns:
            tuple[Tensor, Tensor]: Scores ``(b, B)`` and the support texts of
            the matching pairs ``(b, D)``.
        """
        support = self.support_text(text, state.unit_frames, centre)
        scores = (support * pooled).sum(dim=-1)
        own = torch.arange(len(text), device=text.device)
        matching = torch.tensor(joint_rows, device=text.device)
        return scores, support[own, matching]

    def _in_chunks(
        self,
        function: Callable[[slice, slice], tuple[Tensor, Tensor]],
        num_texts: int,
        num_videos: int,
    ) -> tuple[Tensor, Tensor]:
        """Run a function over chunks of pairs, recomputed in backward."""
        chunks = list(self.chunks(num_texts, num_videos, self.memory_budget))
        if len(chunks) == 1:
            return function(*chunks[0])
        lines: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for rows, columns in chunks:
            # random numbers are keyed, so there is no state to preserve
            part = checkpoint(
                function,
                rows,
                columns,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            lines.setdefault(rows.start, []).append(part)
        joined = [
            [torch.cat(parts, dim=1) for parts in zip(*line, strict=True)]
            for line in lines.values()
        ]
        scores, pooled = zip(*joined, strict=True)
        return torch.cat(scores), torch.cat(pooled)
