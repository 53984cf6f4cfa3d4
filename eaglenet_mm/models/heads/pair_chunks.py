"""Chunks of a matrix of pairs, in evaluation and in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def cut_chunks(
    num_texts: int, num_videos: int, pairs: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix of pairs into blocks.

    A block has many texts and few videos: the state of a video is large, and
    products with it run over all its texts at once.

    Args:
        num_texts (int): Rows.
        num_videos (int): Columns.
        pairs (int): Pairs of a block at most, though a block has one at
            least.

    Yields:
        tuple[slice, slice]: Rows and columns of a block.
    """
    rows = max(1, min(num_texts, pairs))
    columns = max(1, min(num_videos, pairs // rows))
    for column in range(0, num_videos, columns):
        for row in range(0, num_texts, rows):
            yield (
                slice(row, min(row + rows, num_texts)),
                slice(column, min(column + columns, num_videos)),
            )


def score_recomputing(
    score_block: Callable[[slice, slice], Tensor],
    blocks: list[tuple[slice, slice]],
) -> Tensor:
    """Score block by block, and each again in the backward pass.

    Args:
        score_block (Callable): Scores the pairs of some rows and columns,
            shape ``(rows, columns, ...)``.
        blocks (list[tuple[slice, slice]]): Of :func:`cut_chunks`. A single
            block is kept for the backward pass as it is.

    Returns:
        Tensor: Shape ``(Bt, Bv, ...)``.
    """
    if len(blocks) == 1:
        return score_block(*blocks[0])
    columns: dict[int, list[Tensor]] = {}
    for block in blocks:
        scores = checkpoint(score_block, *block, use_reentrant=False)
        columns.setdefault(block[1].start, []).append(scores)
    return torch.cat([torch.cat(part) for part in columns.values()], dim=1)
