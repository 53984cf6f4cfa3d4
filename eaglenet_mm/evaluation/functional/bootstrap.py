"""Bootstrap interval of a recall."""

from __future__ import annotations

import torch
from torch import Tensor

_DRAWS_PER_CHUNK = 1 << 22


def bootstrap_recall(
    ranks: Tensor,
    groups: Tensor | None = None,
    *,
    k: int = 1,
    num_samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of ``R@k``.

    Queries are resampled with replacement. Captions of one video are not
    independent, so with ``groups`` whole groups are resampled.

    Args:
        ranks (Tensor): Ranks counted from 1, shape ``(Q,)``.
        groups (Tensor, optional): Group of each query, such as its video;
            integers, shape ``(Q,)``. Default: every query is a group.
        k (int): Cut-off of the recall. Default: 1.
        num_samples (int): Number of resampled sets. Default: 2000.
        level (float): Coverage in (0, 1). Default: 0.95.
        seed (int): Seed of the resampling. Default: 0.

    Returns:
        tuple[float, float]: Lower and upper end in percent.

    Raises:
        ValueError: If there are no ranks, or an argument is out of range.
    """
    if ranks.numel() == 0 or num_samples < 1 or not 0 < level < 1:
        raise ValueError(
            'A bootstrap interval needs at least one rank, num_samples >= 1 '
            f'and 0 < level < 1, but got {ranks.numel()} ranks, '
            f'num_samples={num_samples}, level={level}.'
        )
    hits = (ranks.cpu() <= k).double()
    if groups is None:
        groups = torch.arange(len(hits))
    _, group, sizes = groups.cpu().unique(
        return_inverse=True, return_counts=True
    )
    hits = hits.new_zeros(len(sizes)).index_add_(0, group, hits)  # (G,)
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _DRAWS_PER_CHUNK // len(sizes))
    recalls = []
    for start in range(0, num_samples, chunk):
        shape = (min(chunk, num_samples - start), len(sizes))
        drawn = torch.randint(len(sizes), shape, generator=generator)
        recalls.append(hits[drawn].sum(1) / sizes[drawn].sum(1))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()
    low, high = torch.quantile(torch.cat(recalls), tails).tolist()
    return 100.0 * low, 100.0 * high
