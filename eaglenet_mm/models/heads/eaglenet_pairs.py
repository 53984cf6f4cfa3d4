"""The pairs that one process scores in a training step of EagleNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eaglenet_mm.models.heads.eaglenet_state import (
    EagleNetVideoState,
    PairChunk,
)
from eaglenet_mm.models.layers import KeyedRandom


class OwnPairs:
    """The pairs of this process's texts with all videos, in chunks.

    With more than one chunk the graph of each is recomputed in backward, and
    its pooled videos are recomputed for the support scores, so that nothing
    wider than a score is kept for all pairs.

    Args:
        head (EagleNetHead): The head.
        texts (Tensor): Of the joint batch, shape ``(B, D)``.
        videos (EagleNetVideoState): Of the joint batch.
        rows (range): Own texts, as rows of the joint batch.
        random (KeyedRandom): Random numbers of the step.
    """

    def __init__(
        self,
        head: Any,
        texts: Tensor,
        videos: EagleNetVideoState,
        rows: range,
        random: KeyedRandom,
    ) -> None:
        self.head = head
        self.text = texts[rows.start :: rows.step]
        self.videos = videos
        self.rows = rows
        self.random = random
        self.chunks = list(
            head.chunks(len(self.text), len(videos), head.memory_budget)
        )
        self.kept: Tensor | None = None

    def _pool(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Scores ``(b, c)`` and pooled videos of unit length ``(b, c, D)``."""
        head, chunk = (
            self.head,
            PairChunk(self.rows[rows], columns, len(self.videos)),
        )
        enriched, pooled = head.enrich_and_pool(
            self.text[rows],
            self.videos.index_select(columns),
            head.pair_noise(self.random, chunk, self.text),
            chunk if head.training else None,
            self.random,
        )
        pooled = F.normalize(pooled, dim=-1)
        return (F.normalize(enriched, dim=-1) * pooled).sum(dim=-1), pooled

    def scores_and_centre(self) -> tuple[Tensor, Tensor]:
        """Score the pairs, and add up the pooled videos over own texts.

        Returns:
            tuple[Tensor, Tensor]: Scores ``(b, B)`` and sums ``(B, D)``.
        """
        if len(self.chunks) == 1:
            scores, self.kept = self._pool(*self.chunks[0])
            return scores, self.kept.sum(dim=0)

        def summed(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            scores, pooled = self._pool(rows, columns)
            return scores, pooled.sum(dim=0)

        blocks = self._recomputed(summed)
        columns: dict[int, Tensor] = {}
        for (_, column), (_, total) in zip(self.chunks, blocks, strict=True):
            before = columns.get(column.start)
            columns[column.start] = total if before is None else before + total
        scores = self._joined([scores for scores, _ in blocks])
        return scores, torch.cat([columns[start] for start in sorted(columns)])

    def support_scores(self, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Score the support texts.

        Args:
            centre (Tensor): Mean over all texts of the pooled videos of unit
                length, shape ``(B, D)``.

        Returns:
            tuple[Tensor, Tensor]: Scores ``(b, B)`` and the support texts of
            the matching pairs ``(b, D)``.
        """

        def score(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            pooled = self.kept
            if pooled is None:
                pooled = self._pool(rows, columns)[1]
            support = self.head.support_text(
                self.text[rows],
                self.videos.unit_frames[columns],
                centre[columns],
            )
            scores = (support * pooled).sum(dim=-1)
            matching = torch.tensor(self.rows[rows], device=centre.device)
            inside = (matching >= columns.start) & (matching < columns.stop)
            place = (matching - columns.start).clamp(0, support.shape[1] - 1)
            own = torch.arange(len(place), device=centre.device)
            return scores, support[own, place] * inside.unsqueeze(-1)

        if len(self.chunks) == 1:
            return score(*self.chunks[0])
        blocks = self._recomputed(score)
        supports: dict[int, Tensor] = {}
        for (row, _), (_, support) in zip(self.chunks, blocks, strict=True):
            before = supports.get(row.start)
            supports[row.start] = (
                support if before is None else before + support
            )
        scores = self._joined([scores for scores, _ in blocks])
        return scores, torch.cat([supports[row] for row in sorted(supports)])

    def _recomputed(
        self, function: Callable[[slice, slice], tuple[Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Run a function over the chunks, again in backward."""
        return [
            checkpoint(
                function,
                rows,
                columns,
                use_reentrant=False,
                preserve_rng_state=False,  # random numbers are keyed
            )
            for rows, columns in self.chunks
        ]

    def _joined(self, blocks: list[Tensor]) -> Tensor:
        """Put the scores of the chunks together."""
        lines: dict[int, list[Tensor]] = {}
        for (rows, _), block in zip(self.chunks, blocks, strict=True):
            lines.setdefault(rows.start, []).append(block)
        return torch.cat([torch.cat(line, dim=1) for line in lines.values()])
