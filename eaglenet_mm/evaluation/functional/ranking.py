"""Ranks of the right answers in a score matrix, and their summary.

Rows are texts, columns videos. ``video_of_caption[i]`` is the column of the
video that caption ``i`` describes. If some caption has several right videos or
none, :class:`RightPairs` takes its place.

In a two-stage matrix the shortlisted pairs have the head's scores. All others
have the cheap score of the first stage, mapped below every score of a head
element by element, so any process can compute any row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

RECALL_AT = (1, 5, 10, 50)
#: The k of ``mAP@k`` and ``nDCG@k``.
PRECISION_AT = (5, 10, 50)
# entries compared at once, to limit the size of boolean temporaries
_ENTRIES_PER_CHUNK = 1 << 24
_SORTED_PER_CHUNK = 1 << 22  # sorting has larger temporaries
#: Pairs with this score or less are not shortlisted.
OFF_SHORTLIST = -(2.0**60)

_STEP = 2.0**-28  # resolution of cheap scores
_BITS_OF_LIMIT = (60 + 127) << 23  # of the float32 number 2**60


@dataclass(frozen=True)
class RightPairs:
    """Right pairs of a score matrix of ``Bt`` texts and ``Bv`` videos.

    A text may have several right videos, or none: then it is not a query of
    text-to-video, and a wrong candidate in video-to-text. The same holds for
    videos.

    Args:
        columns (Tensor): Column of each text's own video, or of its first
            right video if its own is wrong, or -1 without a right video;
            int64, shape ``(Bt,)``. Texts with the same column are one
            candidate of video-to-text, and one group of a bootstrap.
        texts (Tensor): Text of each right pair, ascending, int64, shape
            ``(N,)``.
        videos (Tensor): Video of each right pair, ascending within a text,
            int64, shape ``(N,)``. Pairs are distinct.

    Example:
        >>> texts, videos = torch.tensor([[0, 0], [0, 2]])
        >>> RightPairs(torch.tensor([0, -1]), texts, videos).is_simple()
        False
    """

    columns: Tensor
    texts: Tensor
    videos: Tensor

    def __len__(self) -> int:
        return len(self.columns)

    def simplify(self) -> RightPairs | Tensor:
        """Return :attr:`columns` if every text has exactly one right video."""
        return self.columns if self.is_simple() else self

    def is_simple(self) -> bool:
        """Whether every text has exactly one right video."""
        places = torch.arange(len(self), device=self.texts.device)
        return torch.equal(self.texts, places)

    def select(self, rows: slice, columns: Tensor) -> RightPairs:
        """Select a range of texts and ascending videos, and renumber them."""
        highest = max(
            int(part.max()) if len(part) else -1
            for part in (columns, self.columns, self.videos)
        )
        place = columns.new_full((highest + 2,), -1)  # the last is for -1
        place[columns] = torch.arange(len(columns), device=columns.device)
        videos = place[self.videos]
        here = (self.texts >= rows.start) & (self.texts < rows.stop)
        kept = here & (videos >= 0)
        return RightPairs(
            place[self.columns[rows]],
            self.texts[kept] - rows.start,
            videos[kept],
        )

    def of_texts(self, start: int, stop: int, num_videos: int) -> Tensor:
        """Mark the right videos of some texts, bool ``(stop - start, Bv)``."""
        shape, device = (stop - start, num_videos), self.texts.device
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        here = (self.texts >= start) & (self.texts < stop)
        mask[self.texts[here] - start, self.videos[here]] = True
        return mask

    def groups(self) -> Tensor:
        """Number the candidates of video-to-text, int64, shape ``(Bt,)``.

        Texts of one video share a group, a text without any has its own.
        """
        own = -1 - torch.arange(len(self), device=self.columns.device)
        numbers = torch.where(self.columns < 0, own, self.columns)
        return numbers.unique(return_inverse=True)[1]


class RankResult(NamedTuple):
    """Ranks of all queries of one direction.

    The last three fields are set only for :class:`RightPairs`.

    Args:
        ranks (Tensor): Rank of each query's right answer (the first of
            several), counted from 1, int64, shape ``(Q,)``.
        ties (Tensor): Number of wrong candidates with the same score as this
            answer, all of which count as ranked before it; int64, shape
            ``(Q,)``.
        queries (Tensor, optional): Text or video of each query, ascending,
            int64, shape ``(Q,)``; those without a right answer are left out.
        positions (Tensor, optional): Ranks of the right answers among all
            candidates, at most 50 per query, ascending and padded with 0,
            int64, shape ``(Q, n)``.
        num_right (Tensor, optional): Number of right answers, int64, shape
            ``(Q,)``.

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
        """Number of queries whose right answer ties with a wrong one."""
        return int((self.ties > 0).sum())


def check_finite(scores: Tensor) -> None:
    """Refuse a score matrix with a NaN or an infinity.

    Args:
        scores (Tensor): Shape ``(Q, C)``.

    Raises:
        ValueError: If the matrix is not two-dimensional, or a score is not
            finite; the message gives their number and the first position.
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

    The rank is the number of candidates, including the right one, that score
    at least as high: 1 is best, and with equal scores every query gets the
    last rank.

    Args:
        scores (Tensor): Floating point, shape ``(Q, C)``; rows are queries.
        targets (Tensor): Column of the right candidate of each query,
            integers in ``[0, C)``, shape ``(Q,)``.

    Returns:
        RankResult: Ranks in ``[1, C]`` and tie counts, both shape ``(Q,)``.

    Raises:
        ValueError: If a score is not finite, the sizes differ, or a target
            is out of range.

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
    """Rank the right video of every caption that has one.

    Of several right videos the first counts: its rank is one more than the
    number of wrong videos that score at least as high, so right videos do not
    push each other back.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor or RightPairs): Column of each caption's
            video, shape ``(Bt,)``, or the right pairs.

    Returns:
        RankResult: One entry for each caption, shape ``(Bt,)``; with right
        pairs, one for each caption that has a right video.

    Raises:
        ValueError: If a score is not finite, or the pairs do not match the
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

    The score of a group is the highest of its captions, as the field
    evaluates video-to-text retrieval on multi-caption sets.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor): Column of each caption's video, shape
            ``(Bt,)``.

    Returns:
        tuple[Tensor, Tensor]: Scores, shape ``(G, G)``, rows videos, columns
        groups of captions; and the columns of these G videos in ``scores``,
        ascending, shape ``(G,)``. Videos without captions are on neither
        axis.
    """
    video_of_caption = video_of_caption.to(scores.device, torch.long)
    videos, counts = video_of_caption.unique(return_counts=True)
    if len(videos) == len(video_of_caption):  # one caption each
        groups = scores[video_of_caption.argsort()]  # (G, Bv)
    else:
        # loops sort captions by video, which saves a copy of the matrix
        if bool((video_of_caption.diff() < 0).any()):
            scores = scores[video_of_caption.argsort(stable=True)]
        parts = scores.split(counts.tolist())
        groups = torch.stack([part.amax(dim=0) for part in parts])  # (G, Bv)
    return groups[:, videos].t(), videos


def video_to_text_ranks(
    scores: Tensor, video_of_caption: Tensor | RightPairs
) -> RankResult:
    """Rank the right captions of every video that has some.

    Candidates are groups of captions, see :func:`video_caption_scores`. With
    right pairs, a group may hold right and wrong captions of a video: it then
    counts as two candidates, each with its own highest score.

    Args:
        scores (Tensor): Shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor or RightPairs): Column of each caption's
            video, shape ``(Bt,)``, or the right pairs.

    Returns:
        RankResult: One entry for each video with captions, in the order of
        the columns, shape ``(G,)``.

    Raises:
        ValueError: If a score is not finite, or the pairs do not match the
            matrix.
    """
    if isinstance(video_of_caption, Tensor):
        check_finite(scores)  # before the maximum hides the position
        by_video, videos = video_caption_scores(scores, video_of_caption)
        targets = torch.arange(len(videos), device=scores.device)
        return rank_targets(by_video, targets)
    right = video_of_caption
    _check_matrix(scores, right)
    num_texts, num_videos = scores.shape
    groups = right.groups().to(scores.device)
    num_groups = int(groups.max()) + 1 if num_texts else 0
    # count each right group of a video once
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
    """Number of right answers per query whose positions are kept."""
    most = int(num_right.max()) if len(num_right) else 0
    return min(max(PRECISION_AT), most)


def _place(right: Tensor, wrong: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Positions ``(n, depth)`` of right among wrong ones; ties of the first.

    Both inputs are scores ``(n, C)``, minus infinity where there is none.
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
    """Join chunks and drop queries without a right answer."""
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
    """Summarise ranks as recall, median rank and mean rank.

    Args:
        ranks (Tensor): Ranks counted from 1, shape ``(Q,)``.
        recall_at (Sequence[int]): The k of ``R@k``. Default:
            ``(1, 5, 10, 50)``.

    Returns:
        dict[str, float]: ``R1`` ... in percent, ``MdR`` (the mean of the two
        middle ranks if Q is even) and ``MnR``.

    Raises:
        ValueError: If there are no ranks.
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
    """Summarise the positions of several right answers as mAP and nDCG.

    Args:
        result (RankResult): From :class:`RightPairs`, with ``Q`` queries.
        at (Sequence[int]): Cut-offs k, at most 50. Default: ``(5, 10, 50)``.

    Returns:
        dict[str, float]: Means over the queries in percent. ``mAP5`` ...: sum
        of the precision at each right answer among the first k, divided by
        the smaller of k and the number of right answers. ``nDCG5`` ...: sum
        of ``1 / log2(position + 1)`` over the right answers among the first
        k, divided by its largest possible value.

    Raises:
        ValueError: If there are no queries, or the result has no positions.
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
        # summed in the order of the ideal, so a perfect list gives exactly 100
        gains = (1 / (positions + 1).log2()).where(counted, 0.0)
        gain = gains.cumsum(dim=1)[:, -1]
        places = torch.arange(1, k + 1, device=positions.device).double()
        ideal = (1 / (places + 1).log2()).cumsum(0)[possible - 1]
        summary[f'mAP{k}'] = 100.0 * (precision / possible).mean().item()
        summary[f'nDCG{k}'] = 100.0 * (gain / ideal).mean().item()
    return summary


def off_shortlist_scores(cheap: Tensor) -> Tensor:
    """Map cheap scores below every score of a head, keeping their order.

    Subtracting a constant would not do: next to a large number, the 24 bits of
    float32 lose the differences of cosines. Instead, the cheap score is
    rounded to a multiple of ``2**-28``, which is exact for float32 of
    magnitude 1/32 and above, and counted down through the float32 numbers from
    ``-2**60`` (cheap score 1) to ``-2**124`` (cheap score -1). The order holds
    across rows and columns; the values have no other meaning.

    Args:
        cheap (Tensor): Scores in [-1, 1], float32, any shape. Values outside,
            due to rounding, are clamped.

    Returns:
        Tensor: Float32, the same shape, all at or below
        :data:`OFF_SHORTLIST`.
    """
    steps = (cheap.clamp(-1, 1) / _STEP).round().to(torch.int32)
    bits = _BITS_OF_LIMIT + (int(1 / _STEP) - steps)
    return -bits.view(torch.float32)


def on_shortlist(scores: Tensor) -> Tensor:
    """Mark the pairs scored by the head; all pairs of a one-stage matrix.

    Args:
        scores (Tensor): Any shape.

    Returns:
        Tensor: Bool, the same shape.
    """
    return scores.float() > OFF_SHORTLIST


def shortlist_recall(
    scores: Tensor, video_of_caption: Tensor | RightPairs
) -> tuple[float, float]:
    """Measure how often the first stage keeps a right answer.

    Args:
        scores (Tensor): A two-stage matrix, shape ``(Bt, Bv)``, rows texts.
        video_of_caption (Tensor or RightPairs): Column of each caption's
            video, shape ``(Bt,)``, or the right pairs.

    Returns:
        tuple[float, float]: Percentage of captions with a right video on
        their shortlist, and percentage of videos on the shortlist of one of
        their right captions, out of those with a right answer.
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
