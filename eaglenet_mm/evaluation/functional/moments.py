"""How well moments are found: windows of videos, ranked for captions.

A moment is ``[start, end]`` in seconds. Several moments of a caption are
alternatives, such as the answers of several annotators; a window overlaps them
as much as the one it fits best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: The k of ``R@k``, and the IoU from which on a window is right.
MOMENT_RECALL_AT = (1, 5)
IOU_THRESHOLDS = (0.5, 0.7)
#: Seconds of a chunk of DiDeMo.
DIDEMO_CHUNK = 5.0

_ROUNDING = 1e-6  # of seconds and of IoUs
#: Annotators of DiDeMo that must agree; the others are left out.
_CONSENSUS = 3


class RankedWindows(NamedTuple):
    """How the windows were ranked for one caption.

    Args:
        ranks (tuple[int, ...]): Rank of the first right window by each
            threshold, from 1; 0 if no window is right.
        num_right (tuple[int, ...]): Number of right windows by each.
        num_windows (int): Number of windows.
        overlap (float): IoU of the first window.
        mean_overlap (float): Mean IoU of all windows.

    Example:
        >>> scores, overlaps = torch.tensor([[0.9, 0.5], [0.2, 0.6]])
        >>> rank_windows(scores, overlaps, (0.5,)).ranks
        (2,)
    """

    ranks: tuple[int, ...]
    num_right: tuple[int, ...]
    num_windows: int
    overlap: float
    mean_overlap: float


def temporal_iou(windows: Tensor, moments: Tensor) -> Tensor:
    """Intersection over union of windows and moments.

    Args:
        windows (Tensor): First second and end of each, shape ``(W, 2)``.
        moments (Tensor): Likewise, shape ``(M, 2)``.

    Returns:
        Tensor: In [0, 1], float64, shape ``(W, M)``.

    Raises:
        ValueError: If a shape is wrong, or a span does not end after it
            starts.
    """
    for name, spans in (('Windows', windows), ('Moments', moments)):
        if spans.ndim != 2 or spans.shape[1] != 2:
            raise ValueError(
                f'{name} must be pairs of start and end, shape (n, 2), but '
                f'got shape {tuple(spans.shape)}.'
            )
        if not bool((spans[:, 0] < spans[:, 1]).all()):  # also if NaN
            place = int((~(spans[:, 0] < spans[:, 1])).int().argmax())
            raise ValueError(
                f'{name} must end after they start, but number {place} is '
                f'{spans[place].tolist()}.'
            )
    one, other = windows.double()[:, None], moments.double()[None]
    start = torch.maximum(one[..., 0], other[..., 0])  # (W, M)
    end = torch.minimum(one[..., 1], other[..., 1])
    shared = (end - start).clamp(min=0)
    lengths = (one[..., 1] - one[..., 0]) + (other[..., 1] - other[..., 0])
    return shared / (lengths - shared)


def rank_windows(
    scores: Tensor,
    overlaps: Tensor,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> RankedWindows:
    """Rank the windows for one caption; ties count against it.

    Of windows with equal scores, wrong ones rank before right ones, and the
    one with the lowest IoU is the first.

    Args:
        scores (Tensor): Of the windows; higher is better, shape ``(W,)``.
        overlaps (Tensor): Their IoU with the moment, shape ``(W,)``.
        thresholds (Sequence[float]): Smallest IoU of a right window.
            Default: ``(0.5, 0.7)``.

    Returns:
        RankedWindows: The ranks.

    Raises:
        ValueError: If there is no window, or a score is not finite.
    """
    if scores.ndim != 1 or not len(scores) or scores.shape != overlaps.shape:
        raise ValueError(
            'Windows need one score and one IoU each, at least one window, '
            f'but got shapes {tuple(scores.shape)} and '
            f'{tuple(overlaps.shape)}.'
        )
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(
            'Scores of windows must be finite, but '
            f'{int((~torch.isfinite(scores)).sum())} of {len(scores)} are '
            'not. Look for features that are zero or not finite.'
        )
    ranks, counts = [], []
    for threshold in thresholds:
        right = overlaps >= threshold - _ROUNDING
        counts.append(int(right.sum()))
        before = 0
        if counts[-1]:
            before = int((scores[~right] >= scores[right].max()).sum())
        ranks.append(before + 1 if counts[-1] else 0)
    return RankedWindows(
        tuple(ranks),
        tuple(counts),
        len(scores),
        float(overlaps[scores == scores.max()].min()),
        float(overlaps.double().mean()),
    )


def summarize_windows(
    results: Sequence[RankedWindows],
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    recall_at: Sequence[int] = MOMENT_RECALL_AT,
) -> dict[str, float]:
    """Summarise the ranks of all captions, beside chance and what can be had.

    Args:
        results (Sequence[RankedWindows]): One a caption.
        thresholds (Sequence[float]): Those of the ranks.
        recall_at (Sequence[int]): The k of ``R@k``. Default: ``(1, 5)``.

    Returns:
        dict[str, float]: In percent. ``R1_IoU0.5`` ...: captions with a right
        window among the first k; ``R1_IoU0.5_chance``: what windows in random
        order would reach on average; ``IoU0.5_ceiling``: captions with a right
        window at all; ``mIoU``: mean IoU of the first window, and
        ``mIoU_chance``.

    Raises:
        ValueError: If there are no results.
    """
    if not results:
        raise ValueError('There are no moments to summarise: give captions.')
    summary: dict[str, float] = {}
    for place, threshold in enumerate(thresholds):
        own = [(x.ranks[place], x.num_right[place]) for x in results]
        for k in recall_at:
            key = f'R{k}_IoU{threshold:g}'
            summary[key] = _percent([0 < rank <= k for rank, _ in own])
            summary[f'{key}_chance'] = _percent(
                [
                    chance_of_hit(count, result.num_windows, k)
                    for result, (_, count) in zip(results, own, strict=True)
                ]
            )
        summary[f'IoU{threshold:g}_ceiling'] = _percent(
            [count > 0 for _, count in own]
        )
    summary['mIoU'] = _percent([result.overlap for result in results])
    summary['mIoU_chance'] = _percent([x.mean_overlap for x in results])
    return summary


def chance_of_hit(num_right: int, num_windows: int, k: int) -> float:
    """Probability of a right window among ``k`` that are drawn at random.

    Args:
        num_right (int): Right windows.
        num_windows (int): All windows.
        k (int): Windows drawn, without putting any back.

    Returns:
        float: In [0, 1].

    Example:
        >>> chance_of_hit(1, 4, 2)
        0.5
    """
    k = min(k, num_windows)
    wrong = math.comb(num_windows - num_right, k)
    return 1 - wrong / math.comb(num_windows, k)


def times_in_moments(times: Tensor, moments: Tensor) -> Tensor:
    """Whether seconds lie in any of some moments, ends included.

    Args:
        times (Tensor): Seconds, shape ``(n,)``.
        moments (Tensor): Shape ``(M, 2)``.

    Returns:
        Tensor: Bool, shape ``(n,)``.
    """
    times = times.double()[:, None]
    inside = (times >= moments[:, 0] - _ROUNDING) & (
        times <= moments[:, 1] + _ROUNDING
    )
    return inside.any(dim=1)


def share_in_moments(start: float, end: float, moments: Tensor) -> float:
    """Share of a clip that any of some moments takes.

    It is the chance of a random second to lie in one.

    Args:
        start (float): First second of the clip.
        end (float): Its end.
        moments (Tensor): Shape ``(M, 2)``.

    Returns:
        float: In [0, 1].

    Example:
        >>> share_in_moments(0, 10, torch.tensor([[2., 4.], [3., 5.]]))
        0.3
    """
    covered, reached = 0.0, start
    for first, last in sorted(moments.tolist()):
        first, last = max(first, reached), min(last, end)
        if last > first:
            covered += last - first
            reached = last
    return covered / (end - start)


def didemo_consensus(
    scores: Tensor, chunks: Tensor, times: Tensor
) -> tuple[float, float]:
    """Rank the candidates of DiDeMo for one caption, by its evaluator.

    It takes the mean of the three annotators that agree best with the answer,
    of the rank of their moment and of the IoU of the first candidate. Differs
    from it: ties count against the caption, and a moment that is not among the
    candidates comes behind all of them, where it would stop.

    Args:
        scores (Tensor): Of the candidates; higher is better, shape ``(N,)``.
        chunks (Tensor): First and last chunk of each, counted from 0, int64,
            shape ``(N, 2)``.
        times (Tensor): Likewise of each annotator, shape ``(A, 2)``.

    Returns:
        tuple[float, float]: Mean rank, from 1, and mean IoU, in [0, 1].

    Example:
        >>> chunks = torch.tensor([[0, 0], [1, 1], [0, 1]])
        >>> times = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 0]])
        >>> didemo_consensus(torch.tensor([0.1, 0.9, 0.5]), chunks, times)
        (1.0, 1.0)
    """
    same = (chunks[:, None] == times[None]).all(dim=-1)  # (N, A)
    own = torch.where(same, scores[:, None], -torch.inf).amax(dim=0)  # (A,)
    ranks = (scores[:, None] >= own).sum(dim=0) + (~same.any(dim=0)).long()
    beyond = torch.tensor([0, 1], device=chunks.device)  # end of the last
    overlaps = temporal_iou(chunks + beyond, times + beyond)  # (N, A)
    firsts = overlaps[scores == scores.max()]
    agreed = firsts.sort(dim=1).values[:, -_CONSENSUS:].mean(dim=1)
    rank = ranks.sort().values[:_CONSENSUS].double().mean()
    return rank.item(), agreed.min().item()


def summarize_didemo(
    results: Sequence[tuple[float, float]],
) -> dict[str, float]:
    """Summarise what :func:`didemo_consensus` says of all captions.

    Args:
        results (Sequence[tuple[float, float]]): Mean rank and mean IoU.

    Returns:
        dict[str, float]: ``rank1`` and ``rank5``, captions whose mean rank is
        at most 1 and 5, and ``mIoU``, in percent.
    """
    return {
        'rank1': _percent([rank <= 1 for rank, _ in results]),
        'rank5': _percent([rank <= 5 for rank, _ in results]),
        'mIoU': _percent([iou for _, iou in results]),
    }


def _percent(values: Sequence[float]) -> float:
    """Mean in percent."""
    return 100.0 * math.fsum(values) / len(values)
