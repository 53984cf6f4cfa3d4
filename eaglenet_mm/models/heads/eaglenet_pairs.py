"""The pairs that one process scores in a training step of EagleNet."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eaglenet_mm.models.heads.eaglenet_state import (
    EagleNetTextState,
    EagleNetVideoState,
)
from eaglenet_mm.models.layers import KeyedRandom, PairRandom, Workspace
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.utils.dist import sum_with_grad
from eaglenet_mm.utils.heap import release_free_heap

#: Bytes of a chunk that still pays, by type of device. Larger ones leave the
#: cache of a CPU; on a GPU they would leave no room in the budget for chunks
#: that are kept.
CHUNK_BYTES = {'cpu': 56 * 2**20, 'cuda': 128 * 2**20}
#: Chunks beyond the budget after which free memory goes back to the system.
RELEASE_EVERY = 4


class OwnPairs:
    """The pairs of this process's texts with all videos.

    Videos are taken in chunks, each with all own texts, since the support
    texts of a video need its pooled forms for all texts. As many chunks as
    fit the memory budget are kept for the backward pass, the others are
    computed again in it.

    Args:
        head (EagleNetHead): The head.
        text (EagleNetTextState): Own texts.
        videos (EagleNetVideoState): Videos of the joint batch.
        rows (range): Own texts, as rows of the joint batch.
        random (KeyedRandom): Random numbers of the step.

    Raises:
        ValueError: If the memory budget does not hold the pairs of a video.
    """

    def __init__(
        self,
        head: Any,
        text: EagleNetTextState,
        videos: EagleNetVideoState,
        rows: range,
        random: KeyedRandom,
    ) -> None:
        self.head = head
        self.text = text
        self.num_videos = len(videos)
        self.rows = rows
        self.random = random
        self.folded = head.graph.fold(
            head.num_frames, head.candidate_noise.num_candidates
        )
        self.workspace = Workspace()
        # the pairs of a video with all own texts stay together
        head.check_budget(len(text))
        column_bytes = head.bytes_per_pair(training=True) * len(text)
        device = text.embeds.device.type
        budget = min(
            head.memory_budget, CHUNK_BYTES.get(device, CHUNK_BYTES['cuda'])
        )
        step = max(1, budget // column_bytes)
        self.chunks = [
            range(start, min(start + step, len(videos)))
            for start in range(0, len(videos), step)
        ]
        self.parts = videos.split(step)
        # one chunk at least is computed anew while the others are kept
        self.num_kept = head.memory_budget // (step * column_bytes)
        if self.num_kept < len(self.chunks):
            self.num_kept -= 1
        self.num_scored = 0

    def scores(self, support: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Score the pairs.

        Args:
            support (bool): Whether support texts are needed.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Scores ``(b, B)``, scores of the
            support texts ``(b, B)`` and the support texts of the matching
            pairs ``(b, D)``; the last two are empty unless asked for.
        """
        blocks = []
        chunks = zip(self.chunks, self.parts, strict=True)
        for number, (columns, videos) in enumerate(chunks):
            if number < self.num_kept:
                blocks.append(self._score(columns, videos, support))
                continue
            blocks.append(
                checkpoint(
                    self._score,
                    columns,
                    videos,
                    support,
                    use_reentrant=False,
                    preserve_rng_state=False,  # random numbers are keyed
                )
            )
        scores, support_scores, matching = zip(*blocks, strict=True)
        return (
            torch.cat(scores).T,
            torch.cat(support_scores).T,
            torch.cat(matching),
        )

    def _score(
        self, columns: range, videos: EagleNetVideoState, support: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score own texts against some videos, videos first."""
        head = self.head
        self._release_memory()
        random = PairRandom(self.random, self.rows, columns)
        enriched, pooled, radius = head.enrich_and_pool(
            self.text,
            videos,
            head.pair_noise(random, at_least_float32(self.text.embeds)),
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
                self.text.embeds, total / self.num_videos, radius
            )
            texts, places = self._matching(columns)
            return (
                scores,
                (supports * pooled).sum(dim=-1),
                supports[places, texts],
            )

    def _release_memory(self) -> None:
        """Keep chunks beyond the budget from piling up holes on the heap."""
        beyond = self.num_scored - self.num_kept
        self.num_scored += 1
        if (
            beyond > 0
            and beyond % RELEASE_EVERY == 0
            and self.text.embeds.is_cpu
        ):
            release_free_heap()

    def _matching(self, columns: range) -> tuple[list[int], list[int]]:
        """Own texts whose video is among the columns, and its place."""
        pairs = [
            (text, row - columns.start)
            for text, row in enumerate(self.rows)
            if row in columns
        ]
        return [text for text, _ in pairs], [place for _, place in pairs]
