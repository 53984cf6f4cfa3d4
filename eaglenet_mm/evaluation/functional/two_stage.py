"""Scores of pairs that a first stage left out of the expensive scoring.

A two-stage matrix holds the head's scores where a caption shortlisted the
video, and elsewhere the cheap score of the first stage, moved below all of
them one by one, so that it does not matter who computes which rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional.right_pairs import RightPairs

#: Pairs at or below this score are off the shortlist.
OFF_SHORTLIST = -(2.0**60)

_STEP = 2.0**-28  # cheap scores that differ by less may become equal
_BITS_OF_LIMIT = (60 + 127) << 23  # of the float32 number 2**60


def off_shortlist_scores(cheap: Tensor) -> Tensor:
    """Move cheap scores below every score of a head, keeping their order.

    A shift would not do: float32 has 24 bits, and next to a large number the
    differences of cosines are lost. The cheap score is instead written as a
    multiple of ``2**-28``, which float32 numbers of magnitude 1/32 and above
    are exactly, and counted down through the float32 numbers from ``-2**60``
    (cheap score 1) to ``-2**124`` (cheap score -1). Larger stays larger,
    across rows and columns; the values mean nothing but their order.

    Args:
        cheap (Tensor): Scores in [-1, 1], float32, any shape. What rounding
            has pushed outside is brought back.

    Returns:
        Tensor: Float32, the same shape, all at or below
        :data:`OFF_SHORTLIST`.
    """
    steps = (cheap.clamp(-1, 1) / _STEP).round().to(torch.int32)
    bits = _BITS_OF_LIMIT + (int(1 / _STEP) - steps)
    return -bits.view(torch.float32)


def on_shortlist(scores: Tensor) -> Tensor:
    """Tell which pairs the head has scored.

    Args:
        scores (Tensor): Any shape.

    Returns:
        Tensor: Bool, the same shape; all True for a matrix of one stage.
    """
    return scores.float() > OFF_SHORTLIST


def shortlist_recall(
    scores: Tensor, video_of_caption: Tensor | RightPairs
) -> tuple[float, float]:
    """Measure how often the first stage lets a right answer through.

    Args:
        scores (Tensor): A two-stage matrix, shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor or RightPairs): Column of each caption's
            video, shape ``(Bt,)``, or the right pairs.

    Returns:
        tuple[float, float]: Percent of the captions that have one of their
        right videos on their shortlist, and percent of the videos that are on
        the shortlist of one of their right captions. Who has no right answer
        is left out.
    """
    if isinstance(video_of_caption, Tensor):
        columns = video_of_caption.to(scores.device, torch.long)
        rows = torch.arange(len(columns), device=scores.device)
    else:
        columns = video_of_caption.videos.to(scores.device)
        rows = video_of_caption.texts.to(scores.device)
    found = on_shortlist(scores[rows, columns])  # (N,)
    texts, videos = (
        100.0 * len(side[found].unique()) / len(side.unique())
        for side in (rows, columns)
    )
    return texts, videos
