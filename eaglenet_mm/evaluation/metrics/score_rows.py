"""Rows of a score matrix, as the loops hand them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ..functional import RightPairs, check_finite

_ROW_KEYS = ('caption_index', 'video_index', 'scores')


def pack_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
    """Take from rows what ranking needs, in few tensors.

    One tensor for each row would make collecting slow: a process sends every
    tensor with a header of its own.

    Args:
        rows (Iterable[Mapping]): Each with ``caption_index``,
            ``video_index``, ``scores`` and optionally ``column`` and
            ``positives``.

    Returns:
        list[dict[str, Tensor]]: Blocks of n rows: ``caption_index`` and
        ``column``, shape ``(n,)``, and ``scores``, shape ``(n, Bv)``; where
        rows have ``positives``, also these, one after the other, and
        ``num_positives``, shape ``(n,)``. One block, unless rows differ in
        length or in having positives.

    Raises:
        KeyError: If a row lacks a key.
    """
    blocks = []
    for (_, several), group in groupby(
        map(_check_row, rows), key=lambda row: (row[2].shape, bool(row[3]))
    ):
        captions, columns, scores, positives = zip(*group, strict=True)
        block = {
            'caption_index': torch.tensor(captions),
            'column': torch.tensor(columns),
            'scores': torch.stack(scores),
        }
        if several:
            # a list within a tuple tells an empty one from none
            lists = [own for (own,) in positives]
            joined = [column for own in lists for column in own]
            block['positives'] = torch.tensor(joined, dtype=torch.long)
            block['num_positives'] = torch.tensor([len(own) for own in lists])
        blocks.append(block)
    return blocks


def _check_row(
    row: Mapping[str, Any],
) -> tuple[int, int, Tensor, tuple[list[int], ...]]:
    """Caption, column of its video, scores ``(Bv,)``, and positives if any."""
    for key in _ROW_KEYS:
        if key not in row:
            raise KeyError(
                'RetrievalRankMetric takes rows with '
                f"{', '.join(_ROW_KEYS)}, but got one without '{key}' (it has "
                f'{sorted(row)}). Use RetrievalValLoop and RetrievalTestLoop.'
            )
    return (
        int(row['caption_index']),
        int(row.get('column', row['video_index'])),
        torch.as_tensor(row['scores']),
        (sorted({int(column) for column in row['positives']}),)
        if 'positives' in row
        else (),
    )


def assemble_rows(
    blocks: Sequence[Mapping[str, Tensor]], announced: Mapping[str, Any]
) -> tuple[Tensor, Tensor | RightPairs]:
    """Order rows by caption, drop duplicates, check that none is missing.

    Args:
        blocks (Sequence[dict]): Of :func:`pack_rows`, in any order.
        announced (Mapping): What the loop says of the whole:
            ``num_captions`` and ``num_videos``, where known.

    Returns:
        tuple[Tensor, Tensor | RightPairs]: Scores, shape ``(Bt, Bv)``, and
        the column of each caption's video, shape ``(Bt,)``, or the right
        pairs where a caption has several right videos or none. Of rows of
        one caption the first is taken.

    Raises:
        ValueError: If rows are missing, differ in length, hold a non-finite
            score, or name a right video that is not in the matrix.
    """
    captions = torch.cat(
        [block['caption_index'] for block in blocks] or [torch.empty(0)]
    )
    distinct, rows = captions.unique(return_inverse=True)
    num_captions = announced.get('num_captions', len(distinct))
    if len(distinct) != num_captions or not blocks:
        raise ValueError(
            f'Expected score rows of {num_captions} captions, but got '
            f'{len(distinct)}. Every process must hand its rows to the '
            'evaluator; use RetrievalValLoop and RetrievalTestLoop.'
        )
    widths = sorted({block['scores'].shape[1] for block in blocks})
    num_videos = announced.get('num_videos', widths[0])
    if widths != [num_videos]:
        raise ValueError(
            f'Every score row must cover the {num_videos} videos, but rows '
            f'have lengths {widths[:5]}.'
        )
    order = torch.arange(len(rows))
    first = order.new_full((num_captions,), len(rows))
    first.scatter_reduce_(0, rows, order, 'amin')
    fresh = first[rows] == order  # False: a duplicate
    widest = max((b['scores'].dtype for b in blocks), key=lambda d: d.itemsize)
    # block by block into its place: no second copy of the whole
    scores = torch.empty(num_captions, num_videos, dtype=widest)  # (Bt, Bv)
    columns = torch.empty(num_captions, dtype=torch.long)
    pairs = []  # of rows with positives: text and video
    plain = torch.ones(num_captions, dtype=torch.bool)
    sizes = [len(block['column']) for block in blocks]
    for block, place, keep in zip(
        blocks, rows.split(sizes), fresh.split(sizes), strict=True
    ):
        scores[place[keep]] = block['scores'][keep].to(widest)
        columns[place[keep]] = block['column'][keep]
        if 'positives' in block:
            counts = block['num_positives']
            plain[place[keep]] = False
            texts = place.repeat_interleave(counts)
            kept = keep.repeat_interleave(counts)
            pairs.append(torch.stack([texts, block['positives']])[:, kept])
    check_finite(scores)
    if not pairs:
        return scores, columns
    texts = torch.where(plain)[0]
    pairs.append(torch.stack([texts, columns[texts]]))
    texts, videos = torch.cat(pairs, dim=1)
    outside = (videos < 0) | (videos >= num_videos)
    if bool(outside.any()):
        raise ValueError(
            f"'positives' are columns from 0 to {num_videos - 1}, but a row "
            f'has {int(videos[outside][0])}.'
        )
    order = (texts * num_videos + videos).argsort()
    return scores, RightPairs(columns, texts[order], videos[order]).simplify()
