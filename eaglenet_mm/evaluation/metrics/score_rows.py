"""Rows of a score matrix, as the loops hand them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..functional import check_finite

_ROW_KEYS = ('caption_index', 'video_index', 'scores')


def check_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a row what ranking needs.

    Args:
        row (Mapping): ``caption_index``, ``video_index``, ``scores`` and
            optionally ``column``.

    Returns:
        dict: ``caption_index``, ``column`` and ``scores``, shape ``(Bv,)``.

    Raises:
        KeyError: If the row lacks a key.
    """
    for key in _ROW_KEYS:
        if key not in row:
            raise KeyError(
                'RetrievalRankMetric takes rows with '
                f"{', '.join(_ROW_KEYS)}, but got one without '{key}' (it has "
                f'{sorted(row)}). Use RetrievalValLoop and RetrievalTestLoop.'
            )
    return {
        'caption_index': int(row['caption_index']),
        'column': int(row.get('column', row['video_index'])),
        'scores': torch.as_tensor(row['scores']),
    }


def assemble_rows(
    rows: Sequence[dict], announced: Mapping[str, int]
) -> tuple[Tensor, Tensor]:
    """Order rows by caption, drop duplicates, check that none is missing.

    Args:
        rows (Sequence[dict]): Of :func:`check_row`, in any order.
        announced (Mapping[str, int]): What the loop says of the whole:
            ``num_captions`` and ``num_videos``, where known.

    Returns:
        tuple[Tensor, Tensor]: Scores, shape ``(Bt, Bv)``, and the column of
        each caption's video, shape ``(Bt,)``.

    Raises:
        ValueError: If rows are missing, differ in length, or hold a
            non-finite score.
    """
    by_caption = {row['caption_index']: row for row in reversed(rows)}
    num_captions = announced.get('num_captions', len(by_caption))
    if len(by_caption) != num_captions or not by_caption:
        raise ValueError(
            f'Expected score rows of {num_captions} captions, but got '
            f'{len(by_caption)}. Every process must hand its rows to the '
            'evaluator; use RetrievalValLoop and RetrievalTestLoop.'
        )
    ordered = [by_caption[index] for index in sorted(by_caption)]
    widths = sorted({len(row['scores']) for row in ordered})
    num_videos = announced.get('num_videos', widths[0])
    if widths != [num_videos]:
        raise ValueError(
            f'Every score row must cover the {num_videos} videos, but rows '
            f'have lengths {widths[:5]}.'
        )
    scores = torch.stack([row['scores'] for row in ordered])  # (Bt, Bv)
    check_finite(scores)
    columns = torch.tensor([row['column'] for row in ordered])
    return scores, columns
