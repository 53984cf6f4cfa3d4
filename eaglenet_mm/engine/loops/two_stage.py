"""Two-stage scoring: a shortlist by a cheap score, the head on it alone."""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional.ranking import (
    OFF_SHORTLIST,
    off_shortlist_scores,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures

#: Captions shortlisted and scored together, by type of device. The head goes
#: through the videos and scores all captions of the block that want one, so a
#: larger block makes larger products. No option: see ``TEXT_BLOCK``.
SHORTLIST_BLOCK = {'cpu': 512, 'cuda': 2048}

_ROUNDING = 1e-3  # by which a cheap score may leave [-1, 1]


class TwoStageScorer:
    """Scores blocks of captions against their shortlists."""

    def __init__(
        self, head: BasePairHead, videos: VideoFeatures, shortlist: int
    ) -> None:
        self.head = head
        self.shortlist = shortlist
        self.scorer = head.chunk_scorer()
        self.video_state = head.prepare_video(videos)
        self.video_vectors = head.shortlist_video(videos).float()  # (Bv, C)

    def __call__(self, text: TextFeatures) -> Tensor:
        """Score a block of captions, ``(Bt, Bv)``.

        On the shortlists by the head, elsewhere by what
        :func:`~eaglenet_mm.evaluation.functional.off_shortlist_scores` makes
        of the cheap score.
        """
        scores = self._cheap_scores(text)  # (Bt, Bv)
        chosen = choose_highest(scores, self.shortlist)
        text_state = self.head.prepare_text(text)
        # sorted by video: one video against all captions that want it
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
                'before the pairs that are off the shortlist, but '
                f'{type(self.head).__name__} gave {exact.min().item():.3g}. '
                'Set shortlist=0 to score all pairs.'
            )
        scores = scores.to(exact.dtype)
        scores[captions, videos] = exact
        return scores

    def _cheap_scores(self, text: TextFeatures) -> Tensor:
        """Cheap scores, moved below all others, shape ``(Bt, Bv)``."""
        vectors = self.head.shortlist_text(text).float()  # (Bt, C)
        cheap = vectors @ self.video_vectors.t()
        # written so that NaN fails too
        if not bool((cheap.abs() <= 1 + _ROUNDING).all()):
            raise ValueError(
                'Cheap scores must lie in [-1, 1], but those of '
                f'{type(self.head).__name__} reach from '
                f'{cheap.min().item():.3g} to {cheap.max().item():.3g}. '
                'Bring what shortlist_text and shortlist_video return to '
                'unit length.'
            )
        return off_shortlist_scores(cheap)


def choose_highest(scores: Tensor, count: int) -> Tensor:
    """Choose the highest of each row; of equal ones the lower column.

    ``topk`` alone leaves open which of equal ones it takes. Returns a bool
    ``(Bt, Bv)`` with ``count`` True in each row.
    """
    last = scores.topk(count, dim=1).values[:, -1:]  # (Bt, 1)
    above, equal = scores > last, scores == last
    room = count - above.sum(dim=1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=1) <= room))
