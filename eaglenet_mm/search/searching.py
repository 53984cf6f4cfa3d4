"""Two stages: a shortlist by one vector, then the head on the shortlist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.search.records import IndexEntry
from eaglenet_mm.search.shortlisters import Shortlister
from eaglenet_mm.search.state_rows import restore_state
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures


@dataclass(frozen=True)
class SearchHit:
    """A video, or a segment of one, that was found.

    Args:
        entry (IndexEntry): Which one.
        score (float): Of the head; higher is better. Of the first stage, if
            a video was searched with.
        similarity (float): Of the first stage: the cosine of the query and
            the mean frame, unless the head has vectors of its own.
        best_time (float): Second of the frame nearest to the query.

    Example:
        >>> from eaglenet_mm.apis import IndexedFile
        >>> file = IndexedFile('/videos/dog.mp4', size=81920, changed=0)
        >>> entry = IndexEntry(row_id=7, file=file, start=0.0, end=9.5)
        >>> hit = SearchHit(entry, score=0.4, similarity=0.3, best_time=2.5)
        >>> hit.entry.file.path, hit.best_time
        ('/videos/dog.mp4', 2.5)
    """

    entry: IndexEntry
    score: float
    similarity: float
    best_time: float


class VideoSearcher:
    """Searches an index with prepared queries.

    Args:
        head (BasePairHead): The head that prepared the rows.
        index (VideoIndex): The gallery.
        shortlister (Shortlister): The first stage; is brought up to date.
        device (torch.device | str): Where the head computes.
    """

    def __init__(
        self,
        head: BasePairHead,
        index: VideoIndex,
        shortlister: Shortlister,
        device: torch.device | str = 'cpu',
    ) -> None:
        self.head = head
        self.index = index
        self.shortlister = shortlister
        self.device = torch.device(device)
        self._template: Features | None = None
        self.synchronise()

    def synchronise(self) -> None:
        """Bring the first stage up to date with the index."""
        self.shortlister.synchronise(self.index.row_ids, self.index.vectors)

    @torch.no_grad()
    def search(
        self, text: TextFeatures, count: int, shortlist: int
    ) -> list[SearchHit]:
        """Find videos by a sentence.

        Args:
            text (TextFeatures): Features of one sentence.
            count (int): Hits wanted; fewer come back if there are fewer.
            shortlist (int): Rows that the head scores; 0 for all.

        Returns:
            list[SearchHit]: The best first; of equal ones the earlier row.
        """
        if not len(self.index):
            return []
        wanted = max(shortlist, count) if shortlist else len(self.index)
        similarities, row_ids = self.shortlist(text, wanted)
        # in the order of the index, as a test scores its gallery
        order = row_ids.argsort()
        row_ids, similarities = row_ids[order], similarities[order]
        scores, frames = self._rerank(text, row_ids)
        best = scores.argsort(descending=True, stable=True)[:count]
        return self._hits(
            row_ids[best],
            scores[best],
            similarities[best],
            frames[best],
            text.embeds.float().cpu(),
        )

    @torch.no_grad()
    def shortlist(
        self, text: TextFeatures, count: int
    ) -> tuple[Tensor, Tensor]:
        """Run the first stage alone; shapes ``(n,)`` and ``(n,)``."""
        vectors = self.head.shortlist_text(text).float().cpu()
        similarities, row_ids = self.shortlister.search(vectors, count)
        return similarities[0], row_ids[0]

    @torch.no_grad()
    def search_video(
        self, video: VideoFeatures, count: int
    ) -> list[SearchHit]:
        """Find videos by a video, with the first stage alone.

        Args:
            video (VideoFeatures): Of one video.
            count (int): Hits wanted; fewer come back if there are fewer.

        Returns:
            list[SearchHit]: The most similar first.
        """
        if not len(self.index):
            return []
        query = self.head.shortlist_video(video).float().cpu()
        similarities, row_ids = (
            found[0] for found in self.shortlister.search(query, count)
        )
        _, kept = self.index.read(row_ids)
        frames = video.frames[video.frame_mask].float().cpu()  # (n, D)
        return self._hits(row_ids, similarities, similarities, kept, frames)

    def _rerank(
        self, text: TextFeatures, row_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score rows with the head, in blocks; scores and unit frames."""
        text_state = self.head.prepare_text(text)
        scores, frames = [], []
        scorer = self.head.chunk_scorer()
        for block in row_ids.split(_BLOCK):
            tensors, kept = self.index.read(block)
            state = restore_state(self._state_template(), tensors)
            scores.append(
                self.head.score_chunked(
                    text_state, state.to(self.device), scorer
                )[0].cpu()
            )
            frames.append(kept)
        return torch.cat(scores), torch.cat(frames)

    def _state_template(self) -> Any:
        """Prepare a video of zeros, for the kind of the state."""
        if self._template is None:
            shapes = self.index.model.features
            video = VideoFeatures(
                **{
                    name: torch.zeros(
                        1,
                        *shape,
                        dtype=torch.bool if name == 'frame_mask' else None,
                        device=self.device,
                    )
                    for name, shape in shapes.items()
                }
            )
            video.frame_mask[:] = True
            self._template = self.head.prepare_video(video)
        return self._template

    def _hits(
        self,
        row_ids: Tensor,
        scores: Tensor,
        similarities: Tensor,
        frames: Tensor,
        query: Tensor,
    ) -> list[SearchHit]:
        """Describe rows; ``query`` has shape ``(n, D)``, any ``n``."""
        # the frame that is nearest to any vector of the query
        nearness = (frames @ F.normalize(query, dim=-1).t()).amax(dim=-1)
        times = self.index.frame_times(row_ids)
        nearness[times.isnan()] = -torch.inf
        best = times.gather(1, nearness.argmax(dim=1, keepdim=True))[:, 0]
        return [
            # times are rounded to float32, spans are not
            SearchHit(
                entry,
                score,
                similarity,
                min(max(second, entry.start), entry.end),
            )
            for entry, score, similarity, second in zip(
                self.index.entries(row_ids),
                scores.tolist(),
                similarities.tolist(),
                best.tolist(),
                strict=True,
            )
        ]


def recall_of_shortlist(
    all_hits: Sequence[SearchHit], shortlisted: Tensor
) -> float:
    """Tell how many of the best rows the first stage let through.

    Args:
        all_hits (Sequence[SearchHit]): Of a search without a shortlist.
        shortlisted (Tensor): Row numbers of the first stage.

    Returns:
        float: A share, the ceiling of the recall of the second stage.
    """
    wanted = [hit.entry.row_id for hit in all_hits]
    kept = set(shortlisted.tolist())
    return sum(row in kept for row in wanted) / max(len(wanted), 1)


#: Rows whose state is in memory at once.
_BLOCK = 1024
