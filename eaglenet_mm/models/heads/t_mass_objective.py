"""The training objective of T-MASS, within the memory budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.batch_checks import check_batch
from eaglenet_mm.models.heads.eaglenet_state import CandidateNoise
from eaglenet_mm.models.heads.seeded_head import SeededHead
from eaglenet_mm.models.layers import (
    FramePooling,
    KeyedRandom,
    PairRandom,
    PooledFramesState,
    StochasticText,
)
from eaglenet_mm.models.layers.stochastic_text import row_cosines
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import gather_features, sum_with_grad


@dataclass
class MovedTexts(Features):
    """Sentences, and texts around them.

    Args:
        embeds (Tensor): As they leave the encoder, shape ``(B, D)``.
        moved (Tensor): Texts to compare with the videos that the sentence
            pools, shape ``(B, K, D)``.
    """

    embeds: Tensor
    moved: Tensor


#: Turns texts and the videos pooled for them into something of each pair.
PooledFunction = Callable[[MovedTexts, Tensor], Tensor]


class TMASSObjective(SeededHead):
    """Losses of T-MASS, the part of :class:`TMASSHead` for training alone.

    Where the pooled videos of all pairs fit ``memory_budget`` they are kept.
    Beyond it they are pooled chunk by chunk, twice, and again in the backward
    pass: the support text of a pair needs the mean of its video over all
    sentences before it can be compared with any video.
    """

    # set by the head
    support_weight: float
    noise: CandidateNoise
    stochastic_text: StochasticText
    pooling: FramePooling

    def training_noise(self, random: KeyedRandom, rows: range) -> Tensor:
        """Noise of the stochastic texts of own pairs, shape ``(B, D)``."""
        like = self.stochastic_text.radius.weight.float()
        return self.noise.matching(random, rows, like)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the loss of stochastic and of support texts.

        Returns:
            dict[str, Tensor]: ``loss_match`` and, if it has a weight,
            ``loss_support``; ``pos_score`` and ``neg_score`` to watch.
        """
        share = check_batch(text, video, self.check_features)
        random = self.next_random()
        rows = share.rows
        own_video: Any = self.prepare_video(video)
        over_pairs = self._over_pairs(
            text.embeds, gather_features(own_video.pooled_frames), rows, random
        )
        with torch.autocast(text.embeds.device.type, enabled=False):
            sentences = at_least_float32(text.embeds)
            radius = self.stochastic_text.of_matching(
                sentences, own_video.unit_frames
            ).exp()
            noise = self.training_noise(random, rows).to(radius)
            moved = [sentences + noise * radius]
            if self.support_weight:
                sums = over_pairs(_sum_of_texts, sentences.unsqueeze(1))
                means = sum_with_grad(sums.sum(dim=0)) / sums.shape[1]
                centre = means[rows.start :: rows.step]
                direction = F.normalize(centre - sentences, dim=-1)
                moved.append(sentences + direction * radius)
        cosines = over_pairs(_cosines, torch.stack(moved, dim=1)).unbind(-1)
        losses = self.match_losses(cosines[0], share)
        if self.support_weight:
            losses['loss_support'] = self.support_weight * self.match(
                cosines[1], share
            )
        return losses

    def _over_pairs(
        self,
        sentences: Tensor,
        frames: PooledFramesState,
        rows: range,
        random: KeyedRandom,
    ) -> Callable[[PooledFunction, Tensor], Tensor]:
        """Prepare to compute things of all pairs from the pooled videos.

        Args:
            sentences (Tensor): Of the own texts, shape ``(Bt, D)``.
            frames (PooledFramesState): Of all videos.
            rows (range): Places of the own texts in the joint batch.
            random (KeyedRandom): Random numbers of the step.

        Returns:
            Callable: Takes a function and the moved texts, and joins what the
            function gives for chunks of pairs.
        """

        def pool(texts: Any, videos: Any, drawn: PairRandom | None) -> Tensor:
            pooled = self.pooling(texts.embeds, videos, drawn)
            return pooled.transpose(0, 1)  # (Bt, Bv, D)

        def over_pairs(
            pooled_function: Callable[..., Tensor], moved: Tensor
        ) -> Tensor:
            return self.pairs_with_grad(
                pooled_function,
                MovedTexts(sentences, moved),
                frames,
                rows,
                random,
            )

        def recomputing(function: PooledFunction, moved: Tensor) -> Tensor:
            return over_pairs(
                lambda texts, *others: function(texts, pool(texts, *others)),
                moved,
            )

        num_pairs = len(sentences) * len(frames)
        if num_pairs * self.bytes_per_pair(True) > self.memory_budget:
            return recomputing
        pooled = over_pairs(pool, sentences.unsqueeze(1))
        return lambda function, moved: function(
            MovedTexts(sentences, moved), pooled
        )


def _sum_of_texts(texts: MovedTexts, pooled: Tensor) -> Tensor:
    """Sum each video over the texts of a chunk, shape ``(1, Bv, D)``."""
    with torch.autocast(pooled.device.type, enabled=False):
        return pooled.sum(dim=0, keepdim=True)


def _cosines(texts: MovedTexts, pooled: Tensor) -> Tensor:
    """Compare moved texts with their videos, shape ``(Bt, Bv, K)``."""
    with torch.autocast(pooled.device.type, enabled=False):
        return torch.stack(
            [row_cosines(text, pooled) for text in texts.moved.unbind(1)],
            dim=-1,
        )
