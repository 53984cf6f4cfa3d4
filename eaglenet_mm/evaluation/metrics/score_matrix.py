"""The score matrix of an evaluation, put together from rows."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from eaglenet_mm.evaluation.functional import RightPairs, check_finite

_ROW_KEYS = ('caption_index', 'video_index', 'scores')


class ScoreMatrixMetric(BaseMetric):
    """Base of metrics that look at the whole matrix at once."""

    # '' rather than None: the keys are complete, nothing is missing to warn of
    default_prefix: str | None = ''

    def __init__(self, collect_device: str = 'gpu', **kwargs: Any) -> None:
        super().__init__(collect_device=collect_device, **kwargs)
        self._announced: dict[str, Any] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep rows of the score matrix.

        Args:
            data_batch (dict, optional): What the loop says of the complete
                evaluation: ``num_captions``, ``num_videos``,
                ``num_frames``, of a two-stage one ``shortlist`` (int)
                and ``first_stage`` (str), and of a joined one ``parts``, for
                each a dict of ``name``, ``metainfo``, ``rows`` (first, and
                one past the last) and ``columns``, and ``num_repeated``, how
                many videos stand in more than one part.
            data_samples (Sequence[dict]): Rows: ``caption_index`` (int),
                ``video_index`` (int) of its video, ``scores`` against all
                videos in canonical order, shape ``(Bv,)``, and optionally
                ``column`` (int), the place of its video among these, where
                that is not ``video_index``, and ``positives`` (list[int]),
                the places of all right videos, where that is not the one;
                without a right video ``video_index`` and ``column`` are -1.

        Raises:
            KeyError: If a row lacks a key.
        """
        if isinstance(data_batch, Mapping):
            self._announced.update(data_batch)
        self.results.extend(pack_rows(data_samples))

    def evaluate(self, size: int) -> dict:
        """Compute the metrics from the rows of all processes.

        ``size`` is ignored: rows are unique by id, so none is padding.
        """
        return super().evaluate(sys.maxsize)

    def _assemble(
        self, results: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Tensor, Tensor | RightPairs, dict[str, Any]]:
        """The matrix, the right answers, and what was announced."""
        announced, self._announced = self._announced, {}
        return *assemble_rows(results, announced), announced


def pack_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
    """Pack rows into blocks of few tensors: each is sent with a header.

    A block has ``caption_index`` and ``column``, shape ``(n,)``, and
    ``scores``, shape ``(n, Bv)``; where rows have ``positives``, also these,
    one after the other, and ``num_positives``, shape ``(n,)``.
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
            joined = [column for (own,) in positives for column in own]
            block['positives'] = torch.tensor(joined, dtype=torch.long)
            counts = [len(own) for (own,) in positives]
            block['num_positives'] = torch.tensor(counts)
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
        # a list within a tuple tells an empty one from none
        (sorted({int(column) for column in row['positives']}),)
        if 'positives' in row
        else (),
    )


def assemble_rows(
    blocks: Sequence[Mapping[str, Tensor]], announced: Mapping[str, Any]
) -> tuple[Tensor, Tensor | RightPairs]:
    """Order rows by caption, take the first of one caption, miss none."""
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
