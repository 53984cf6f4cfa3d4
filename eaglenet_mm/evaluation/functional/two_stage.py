"""Scores of pairs that a first stage left out of the expensive scoring.

A two-stage matrix holds the head's scores where a caption shortlisted the
video, and elsewhere the cheap score of the first stage, moved below all of
them. Mapped one by one, without a look at the other pairs, so the result does
not depend on who computes which rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    scores: Tensor, video_of_caption: Tensor
) -> tuple[float, float]:
    """Measure how often the first stage lets the right answer through.

    Args:
        scores (Tensor): A two-stage matrix, shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor): Column of each caption's video, shape
            ``(Bt,)``.

    Returns:
        tuple[float, float]: Percent of the captions whose video is on their
        shortlist, and percent of the videos with captions that are on the
        shortlist of at least one caption of their own.
    """
    columns = video_of_caption.to(scores.device, torch.long)
    found = on_shortlist(scores.gather(1, columns[:, None])[:, 0])  # (Bt,)
    videos = columns.unique()
    found_videos = columns[found].unique()
    return (
        100.0 * int(found.sum()) / len(found),
        100.0 * len(found_videos) / len(videos),
    )
