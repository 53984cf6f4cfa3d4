"""Ranks of the right answers in a score matrix, and their summary.

Rows are texts, columns videos. ``video_of_caption[i]`` is the column of the
video that caption ``i`` describes; where a caption has several right videos or
none, :class:`RightPairs` stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional.right_pairs import RightPairs

RECALL_AT = (1, 5, 10, 50)
#: The k of ``mAP@k`` and ``nDCG@k``.
PRECISION_AT = (5, 10, 50)
# entries compared at once: bounds the boolean temporaries of large matrices
_ENTRIES_PER_CHUNK = 1 << 24
_SORTED_PER_CHUNK = 1 << 22  # sorting makes larger temporaries


class RankResult(NamedTuple):
    """Ranks of all queries of one direction.

    Args:
        ranks (Tensor): Rank of each query's right answer, of several the
            first, counted from 1, int64, shape ``(Q,)``.
        ties (Tensor): Number of wrong candidates with the score of this right
            answer, which all count as ranked before it, int64, shape ``(Q,)``.
        queries (Tensor, optional): Of :class:`RightPairs` alone: the text or
            video that each query is, ascending, int64, shape ``(Q,)``; those
            without a right answer are left out.
        positions (Tensor, optional): Of :class:`RightPairs` alone: rank among
            all candidates of each right answer, 50 of them at most, ascending
            and filled up with 0, int64, shape ``(Q, n)``.
        num_right (Tensor, optional): Of :class:`RightPairs` alone: number of
            right answers, int64, shape ``(Q,)``.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
        >>> rank_targets(scores, torch.tensor([0, 1])).num_tied_queries
        1
    """

    ranks: Tensor
    ties: Tensor
    queries: Tensor | None = None
    positions: Tensor | None = None
    num_right: Tensor | None = None

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
    row, column = divmod(int(broken.int().argmax()), scores.shape[1])
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
        scores (Tensor): Floating point, shape ``(Q, C)``; rows are queries.
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
    ranks, ties = torch.empty_like(targets), torch.empty_like(targets)
    size = max(1, _ENTRIES_PER_CHUNK // max(1, num_candidates))
    for start in range(0, num_queries, size):
        rows = slice(start, start + size)
        ranks[rows] = (scores[rows] >= right[rows]).sum(dim=1)
        higher = (scores[rows] > right[rows]).sum(dim=1)
        ties[rows] = ranks[rows] - higher - 1
    return RankResult(ranks, ties)


def text_to_video_ranks(
    scores: Tensor, video_of_caption: Tensor | RightPairs
) -> RankResult:
    """Rank the right video for every caption that has one.

    Of several right videos the first counts: its rank is one more than the
    wrong videos that score at least as high, so right ones do not push each
    other back.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor or RightPairs): Column of each caption's
            video, shape ``(Bt,)``, or the right pairs.

    Returns:
        RankResult: One entry for each caption, shape ``(Bt,)``; of right
        pairs one for each caption that has a right video.

    Raises:
        ValueError: If a score is not finite, or the pairs are of another
            matrix.
    """
    if isinstance(video_of_caption, Tensor):
        return rank_targets(scores, video_of_caption)
    right = video_of_caption
    _check_matrix(scores, right)
    num_right = torch.bincount(right.texts, minlength=len(right))
    depth = _depth(num_right)
    size = max(1, _SORTED_PER_CHUNK // max(1, scores.shape[1]))
    parts = []
    for start in range(0, len(right), size):
        part = scores[start : start + size]  # (n, Bv)
        mask = right.of_texts(start, start + len(part), scores.shape[1])
        mask = mask.to(part.device)
        best = part.masked_fill(~mask, -torch.inf)
        parts.append(_place(best, part.masked_fill(mask, -torch.inf), depth))
    return _join(parts, num_right.to(scores.device))


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
    scores: Tensor, video_of_caption: Tensor | RightPairs
) -> RankResult:
    """Rank the right captions for every video that has some.

    Candidates are groups of captions, see :func:`video_caption_scores`. Of
    right pairs, a group may hold captions that are right for a video and
    others that are not: it then counts as two candidates, each with its own
    highest score.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor or RightPairs): Column of each caption's
            video, shape ``(Bt,)``, or the right pairs.

    Returns:
        RankResult: One entry for each video with captions, in the order of
        the columns, shape ``(G,)``.

    Raises:
        ValueError: If a score is not finite, or the pairs are of another
            matrix.
    """
    if isinstance(video_of_caption, Tensor):
        check_finite(scores)  # before the maximum hides its place
        by_video, videos = video_caption_scores(scores, video_of_caption)
        targets = torch.arange(len(videos), device=scores.device)
        return rank_targets(by_video, targets)
    right = video_of_caption
    _check_matrix(scores, right)
    num_texts, num_videos = scores.shape
    groups = right.groups().to(scores.device)
    num_groups = int(groups.max()) + 1 if num_texts else 0
    # each right group of a video once, however many of its captions are right
    videos = right.videos.to(scores.device)
    distinct = videos * num_groups + groups[right.texts.to(scores.device)]
    num_right = torch.bincount(
        distinct.unique() // max(1, num_groups), minlength=num_videos
    )
    depth = _depth(num_right)
    size = max(1, _SORTED_PER_CHUNK // max(1, num_texts))
    parts = []
    for start in range(0, num_videos, size):
        part = scores[:, start : start + size]  # (Bt, n)
        mask = torch.zeros_like(part, dtype=torch.bool)
        here = (right.videos >= start) & (right.videos < start + size)
        mask[right.texts[here], right.videos[here] - start] = True
        best, wrong = (
            part.new_full((num_groups, part.shape[1]), -torch.inf)
            .scatter_reduce_(
                0,
                groups[:, None].expand_as(part),
                part.masked_fill(left_out, -torch.inf),
                'amax',
            )
            .t()  # (n, G)
            for left_out in (~mask, mask)
        )
        parts.append(_place(best, wrong, depth))
    return _join(parts, num_right)


def _check_matrix(scores: Tensor, right: RightPairs) -> None:
    check_finite(scores)
    if len(right) != len(scores):
        raise ValueError(
            f'Need the right videos of each of the {len(scores)} texts, but '
            f'got those of {len(right)}.'
        )


def _depth(num_right: Tensor) -> int:
    """How many right answers of a query are looked at."""
    most = int(num_right.max()) if len(num_right) else 0
    return min(max(PRECISION_AT), most)


def _place(right: Tensor, wrong: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Positions ``(n, depth)`` of right among wrong ones, ties of the first.

    Both are scores ``(n, C)`` with minus infinity where there is none.
    """
    best = right.topk(depth, dim=1).values.contiguous()  # (n, depth)
    ordered = wrong.sort(dim=1).values.contiguous()  # (n, C)
    below = torch.searchsorted(ordered, best)
    not_above = torch.searchsorted(ordered, best, right=True)
    own = torch.arange(1, depth + 1, device=right.device)
    positions = ordered.shape[1] - below + own
    return positions, (not_above - below)[:, :1].sum(dim=1)


def _join(
    parts: Sequence[tuple[Tensor, Tensor]], num_right: Tensor
) -> RankResult:
    """Join chunks and leave out who has no right answer."""
    positions, ties = (torch.cat(side) for side in zip(*parts, strict=True))
    queries = torch.where(num_right > 0)[0]
    positions, num_right = positions[queries], num_right[queries]
    places = torch.arange(positions.shape[1], device=positions.device)
    positions = positions.where(places < num_right[:, None], 0)
    ranks = positions[:, 0] if positions.shape[1] else queries
    return RankResult(ranks, ties[queries], queries, positions, num_right)


def summarize_ranks(
    ranks: Tensor, recall_at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """Turn ranks into recall, median rank and mean rank.

    Args:
        ranks (Tensor): Ranks counted from 1, shape ``(Q,)``.
        recall_at (Sequence[int]): The k of ``R@k``. Default:
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
    summary = {
        f'R{k}': 100.0 * int((ranks <= k).sum()) / len(ranks)
        for k in recall_at
    }
    ordered = ranks.double().sort().values
    upper, lower = ordered[len(ordered) // 2], ordered[(len(ordered) - 1) // 2]
    summary['MdR'] = ((upper + lower) / 2).item()
    summary['MnR'] = ranks.double().mean().item()
    return summary


def summarize_positions(
    result: RankResult, at: Sequence[int] = PRECISION_AT
) -> dict[str, float]:
    """Turn the positions of several right answers into mAP and nDCG.

    Args:
        result (RankResult): Of :class:`RightPairs`, with ``Q`` queries.
        at (Sequence[int]): The k, 50 at most. Default: ``(5, 10, 50)``.

    Returns:
        dict[str, float]: In percent, means over the queries. ``mAP5`` ...:
        precision at each right answer among the first k, summed and divided
        by the smaller of k and the number of right answers. ``nDCG5`` ...:
        the sum of ``1 / log2(position + 1)`` of the right answers among the
        first k, divided by the largest that is possible.

    Raises:
        ValueError: If there is no query, or the result is of single answers.
    """
    positions, num_right = result.positions, result.num_right
    if positions is None or num_right is None or not len(positions):
        raise ValueError(
            'mAP and nDCG need the positions of right answers, at least of '
            'one query: rank with RightPairs.'
        )
    positions = positions.double()
    ordinal = torch.arange(
        1, positions.shape[1] + 1, device=positions.device
    ).double()
    summary = {}
    for k in at:
        counted = (positions > 0) & (positions <= k)  # (Q, n)
        possible = num_right.clamp(max=k)  # (Q,)
        precision = (ordinal / positions).where(counted, 0.0).sum(dim=1)
        # added up in the order of the ideal: a perfect list is exactly 100
        gains = (1 / (positions + 1).log2()).where(counted, 0.0)
        gain = gains.cumsum(dim=1)[:, -1]
        places = torch.arange(1, k + 1, device=positions.device).double()
        ideal = (1 / (places + 1).log2()).cumsum(0)[possible - 1]
        summary[f'mAP{k}'] = 100.0 * (precision / possible).mean().item()
        summary[f'nDCG{k}'] = 100.0 * (gain / ideal).mean().item()
    return summary
