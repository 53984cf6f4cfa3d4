"""Two-stage scoring: a cheap shortlist, then the head."""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional.ranking import (
    OFF_SHORTLIST,
    off_shortlist_scores,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures

#: Captions in one block, by device type. The head scores each video against
#: all captions of the block that shortlist it, so larger blocks make larger
#: products. Not an option, see ``TEXT_BLOCK``.
SHORTLIST_BLOCK = {'cpu': 512, 'cuda': 2048}

_ROUNDING = 1e-3  # tolerated excess of a cheap score over [-1, 1]


class TwoStageScorer:
    """Scorer of caption blocks against their shortlists."""

    def __init__(
        self, head: BasePairHead, videos: VideoFeatures, shortlist: int
    ) -> None:
        self.head = head
        self.shortlist = shortlist
        self.scorer = head.chunk_scorer()
        self.video_state = head.prepare_video(videos)
        self.video_vectors = head.shortlist_video(videos).float()  # (Bv, C)

    def __call__(self, text: TextFeatures) -> Tensor:
        """Scores ``(Bt, Bv)``: of the head if shortlisted, else below all."""
        scores = self._cheap_scores(text)  # (Bt, Bv)
        chosen = choose_highest(scores, self.shortlist)
        text_state = self.head.prepare_text(text)
        # one video at a time, against all captions that shortlist it
        videos, captions = chosen.t().nonzero(as_tuple=True)
        counts = torch.bincount(videos, minlength=scores.shape[1]).tolist()
        parts = [
            self.head.score_chunked(
                text_state.index_select(wanted),
                self.video_state.index_select(slice(video, video + 1)),
                self.scorer,
            )[:, 0]
            for video, wanted in enumerate(captions.split(counts))
            if len(wanted)
        ]
        exact = torch.cat(parts)
        if bool((exact <= OFF_SHORTLIST).any()):
            raise ValueError(
                f'Scores of a head must be above {OFF_SHORTLIST:.3g}, to rank '
                'above pairs that are not shortlisted, but '
                f'{type(self.head).__name__} gave {exact.min().item():.3g}. '
                'Set shortlist=0 to score all pairs.'
            )
        scores = scores.to(exact.dtype)
        scores[captions, videos] = exact
        return scores

    def _cheap_scores(self, text: TextFeatures) -> Tensor:
        """Cheap scores, shifted below all scores of the head, ``(Bt, Bv)``."""
        vectors = self.head.shortlist_text(text).float()  # (Bt, C)
        cheap = vectors @ self.video_vectors.t()
        # negated, so that NaN fails too
        if not bool((cheap.abs() <= 1 + _ROUNDING).all()):
            raise ValueError(
                'Cheap scores must lie in [-1, 1], but those of '
                f'{type(self.head).__name__} reach from '
                f'{cheap.min().item():.3g} to {cheap.max().item():.3g}. '
                'Normalise what shortlist_text and shortlist_video return to '
                'unit length.'
            )
        return off_shortlist_scores(cheap)


def choose_highest(scores: Tensor, count: int) -> Tensor:
    """Mark the ``count`` highest scores of each row; lower columns win ties.

    Unlike ``topk``, which leaves the choice among ties open. Returns a bool
    mask, ``(Bt, Bv)``.
    """
    last = scores.topk(count, dim=1).values[:, -1:]  # (Bt, 1)
    above, equal = scores > last, scores == last
    room = count - above.sum(dim=1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=1) <= room))
