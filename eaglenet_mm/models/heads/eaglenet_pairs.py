"""The pairs that one process scores in a training step of EagleNet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import TrainingBatch
from eaglenet_mm.models.heads.eaglenet_state import (
    EagleNetTextState,
    EagleNetVideoState,
)
from eaglenet_mm.models.layers import Workspace
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.utils.dist import sum_with_grad

#: Bytes of a chunk that still pays, by type of device. Larger ones leave the
#: cache of a CPU; on a GPU they would leave no room in the budget for chunks
#: that are kept.
CHUNK_BYTES = {'cpu': 56 * 2**20, 'cuda': 128 * 2**20}


class OwnPairs:
    """The pairs of this process's texts with all videos.

    Videos are taken in chunks, each with all own texts, since the support
    texts of a video need its pooled forms for all texts.

    Args:
        head (EagleNetHead): The head.
        batch (TrainingBatch): Own texts and all videos.
    """

    def __init__(self, head: Any, batch: TrainingBatch) -> None:
        self.head = head
        self.batch = batch
        device = batch.text.embeds.device.type
        self.grid = replace(
            batch.grid,
            chunk_bytes=CHUNK_BYTES.get(device, CHUNK_BYTES['cuda']),
            whole_columns=True,
            random=batch.random,  # candidates need noise in any mode
        )
        self.folded = head.graph.fold(
            head.num_frames, head.candidate_noise.num_candidates
        )
        self.workspace = Workspace()

    def scores(self, support: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Score the pairs.

        Args:
            support (bool): Whether support texts are needed.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Scores ``(b, B)``, scores of the
            support texts ``(b, B)`` and the support texts of the matching
            pairs ``(b, D)``; the last two are empty unless asked for.
        """
        blocks = self.grid.blocks(
            lambda text, videos, random: self._score(
                text, videos, random, support
            ),
            self.batch.text,
            self.batch.all_videos,
        )
        scores, support_scores, matching = zip(
            *(part for _, _, part in blocks), strict=True
        )
        return (
            torch.cat(scores).T,
            torch.cat(support_scores).T,
            torch.cat(matching),
        )

    def _score(
        self,
        text: EagleNetTextState,
        videos: EagleNetVideoState,
        random: Any,
        support: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score own texts against some videos, videos first."""
        head = self.head
        enriched, pooled, radius = head.enrich_and_pool(
            text,
            videos,
            head.pair_noise(random, at_least_float32(text.embeds)),
            self.folded,
            random if head.training else None,
            self.workspace,
        )
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = F.normalize(pooled, dim=-1)
            scores = (F.normalize(enriched, dim=-1) * pooled).sum(dim=-1)
            if not support:
                return scores, scores[:0], enriched[:0, 0]
            total = sum_with_grad(pooled.sum(dim=1))
            supports = head.support_text(
                text.embeds, total / len(self.grid.columns), radius
            )
            texts, places = self._matching(random.columns)
            return (
                scores,
                (supports * pooled).sum(dim=-1),
                supports[places, texts],
            )

    def _matching(self, columns: range) -> tuple[list[int], list[int]]:
        """Own texts whose video is among the columns, and its place."""
        pairs = [
            (text, row - columns.start)
            for text, row in enumerate(self.grid.rows)
            if row in columns
        ]
        return [text for text, _ in pairs], [place for _, place in pairs]
