"""Ranks of the right answers in a score matrix, and their summary.

Rows are texts, columns are videos, higher is more alike. One vector describes
the pairing, multi-caption sets included: ``video_of_caption[i]`` is the column
of the video that caption ``i`` describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RECALL_AT = (1, 5, 10, 50)
# entries compared at once: bounds the boolean temporaries of large matrices
_ENTRIES_PER_CHUNK = 1 << 24


class RankResult(NamedTuple):
    """Ranks of all queries of one direction.

    Args:
        ranks (Tensor): Rank of each query's right answer, counted from 1,
            int64, shape ``(Q,)``.
        ties (Tensor): Number of wrong candidates whose score equals that of
            the right answer, int64, shape ``(Q,)``. They all count as ranked
            before it.
    """

    ranks: Tensor
    ties: Tensor

    @property
    def num_tied_queries(self) -> int:
        """Number of queries whose right answer shares its score."""
        return int((self.ties > 0).sum())


def check_finite(scores: Tensor) -> None:
    """Refuse a score matrix with a NaN or an infinity.

    Args:
        scores (Tensor): Any scores, shape ``(Q, C)``.

    Raises:
        ValueError: If the matrix is not two-dimensional, or a score is not
            finite; the message names how many and the first place.
    """
    if scores.ndim != 2:
        raise ValueError(
            'A score matrix must have two axes (queries, candidates), but '
            f'got shape {tuple(scores.shape)}.'
        )
    finite = torch.isfinite(scores)
    if bool(finite.all()):
        return
    broken = (~finite).flatten()
    first = int(broken.int().argmax())
    row, column = divmod(first, scores.shape[1])
    raise ValueError(
        f'Scores must be finite, but {int(broken.sum())} of '
        f'{scores.numel()} are not; the first is '
        f'{scores[row, column].item()} in row {row}, column {column}. Look '
        'for zero or non-finite features of that text or video.'
    )


def rank_targets(scores: Tensor, targets: Tensor) -> RankResult:
    """Rank one right candidate for each query; ties count against it.

    The rank is the number of candidates that score at least as high as the
    right one, itself included: 1 is best, and a matrix of equal scores gives
    the last place to every query.

    Args:
        scores (Tensor): Floating point, shape ``(Q, C)``; row q are the scores
            of query q.
        targets (Tensor): Column of the right candidate of each query,
            integers in ``[0, C)``, shape ``(Q,)``.

    Returns:
        RankResult: Ranks in ``[1, C]`` and tie counts, both shape ``(Q,)``.

    Raises:
        ValueError: If a score is not finite, the sizes differ, or a target
            lies outside the columns.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
        >>> rank_targets(scores, torch.tensor([0, 1])).ranks
        tensor([1, 2])
    """
    check_finite(scores)
    num_queries, num_candidates = scores.shape
    targets = targets.to(device=scores.device, dtype=torch.long)
    if targets.shape != (num_queries,):
        raise ValueError(
            f'Need one target for each of the {num_queries} queries, but got '
            f'shape {tuple(targets.shape)}.'
        )
    outside = (targets < 0) | (targets >= num_candidates)
    if bool(outside.any()):
        first = int(outside.int().argmax())
        raise ValueError(
            f'Targets must lie in [0, {num_candidates}), but target {first} '
            f'is {int(targets[first])}.'
        )
    right = scores.gather(1, targets[:, None])  # (Q, 1)
    rows = max(1, _ENTRIES_PER_CHUNK // max(1, num_candidates))
    ranks, ties = [], []
    for part, right_part in zip(
        scores.split(rows), right.split(rows), strict=True
    ):
        at_least = (part >= right_part).sum(dim=1)
        higher = (part > right_part).sum(dim=1)
        ranks.append(at_least)
        ties.append(at_least - higher - 1)
    if not ranks:
        return RankResult(targets.clone(), targets.clone())
    return RankResult(torch.cat(ranks), torch.cat(ties))


def text_to_video_ranks(
    scores: Tensor, video_of_caption: Tensor
) -> RankResult:
    """Rank the right video for every caption.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor): Column of each caption's video, shape
            ``(Bt,)``.

    Returns:
        RankResult: One entry for each caption, shape ``(Bt,)``.
    """
    return rank_targets(scores, video_of_caption)


def video_caption_scores(
    scores: Tensor, video_of_caption: Tensor
) -> tuple[Tensor, Tensor]:
    """Score every video against every video's group of captions.

    A group's score is the highest among its captions, which is how the
    field evaluates video-to-text retrieval on multi-caption sets.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor): Column of each caption's video, shape
            ``(Bt,)``.

    Returns:
        tuple[Tensor, Tensor]: Scores, shape ``(G, G)``, rows videos, columns
        groups of captions, and the columns of ``scores`` that these G videos
        have, ascending, shape ``(G,)``. Videos without any caption take part
        in neither axis.
    """
    video_of_caption = video_of_caption.to(scores.device, torch.long)
    videos, counts = video_of_caption.unique(return_counts=True)
    if len(videos) == len(video_of_caption):  # one caption each: no maximum
        groups = scores[video_of_caption.argsort()]  # (G, Bv)
    else:
        # loops hand captions over by video: spare a copy of the whole
        if bool((video_of_caption.diff() < 0).any()):
            scores = scores[video_of_caption.argsort(stable=True)]
        parts = scores.split(counts.tolist())
        groups = torch.stack([part.amax(dim=0) for part in parts])  # (G, Bv)
    return groups[:, videos].t(), videos


def video_to_text_ranks(
    scores: Tensor, video_of_caption: Tensor
) -> RankResult:
    """Rank the right captions for every video that has some.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor): Column of each caption's video, shape
            ``(Bt,)``.

    Returns:
        RankResult: One entry for each video with captions, in the order of
        the columns, shape ``(G,)``; ranks count groups of captions.
    """
    check_finite(scores)
    by_video, videos = video_caption_scores(scores, video_of_caption)
    targets = torch.arange(len(videos), device=scores.device)
    return rank_targets(by_video, targets)


def summarize_ranks(
    ranks: Tensor, recall_at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """Turn ranks into recall, median rank and mean rank.

    Args:
        ranks (Tensor): Ranks counted from 1, shape ``(Q,)``.
        recall_at (Sequence[int]): The k of ``R@k``. Defaults to
            ``(1, 5, 10, 50)``.

    Returns:
        dict[str, float]: ``R1`` ... in percent, ``MdR`` (the mean of the two
        middle ranks when Q is even) and ``MnR``.

    Raises:
        ValueError: If there is no rank.
    """
    if ranks.numel() == 0:
        raise ValueError(
            'There are no ranks to summarise: the evaluation has no query.'
        )
    values = ranks.double()
    summary = {
        f'R{k}': 100.0 * int((ranks <= k).sum()) / len(ranks)
        for k in recall_at
    }
    ordered = values.sort().values
    half = len(ordered) // 2
    upper, lower = ordered[half], ordered[(len(ordered) - 1) // 2]
    summary['MdR'] = ((upper + lower) / 2).item()
    summary['MnR'] = values.mean().item()
    return summary
