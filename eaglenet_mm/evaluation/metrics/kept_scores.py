"""A metric that measures nothing and keeps the matrix, for pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..functional import RightPairs
from .score_rows import assemble_rows, pack_rows


class KeptScores(BaseMetric):
    """Keep the score matrix of an evaluation in the main process.

    Stands beside :class:`RetrievalRankMetric` in an evaluator and adds no
    key to the metrics.

    Attributes:
        scores (Tensor, optional): After an evaluation, in the main process,
            shape ``(Bt, Bv)``, both in canonical order.
        right (Tensor or RightPairs, optional): Likewise the column of each
            caption's video, shape ``(Bt,)``, or the right pairs where a
            caption has several right videos or none.
        columns (Tensor, optional): Likewise the column of the video that each
            caption stands with, -1 for none, shape ``(Bt,)``.
    """

    default_prefix = ''

    def __init__(self) -> None:
        # through the process group: needs no folder that nodes share
        super().__init__(collect_device='gpu')
        self.scores: Tensor | None = None
        self.right: Tensor | RightPairs | None = None
        self._announced: dict[str, Any] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep rows; see :meth:`RetrievalRankMetric.process`."""
        if isinstance(data_batch, Mapping):
            self._announced.update(data_batch)
        self.results.extend(pack_rows(data_samples))

    def evaluate(self, size: int) -> dict:
        """Collect the rows of all processes.

        Args:
            size (int): Ignored: rows are unique by id.

        Returns:
            dict: Empty.
        """
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Put the rows in order.

        Args:
            results (list[dict]): Blocks of rows of all processes.

        Returns:
            dict[str, float]: Empty.
        """
        announced, self._announced = self._announced, {}
        self.scores, self.right = assemble_rows(results, announced)
        return {}

    def right_videos(self, rows: Sequence[int]) -> list[list[int]]:
        """List the columns of the right videos of some captions."""
        if isinstance(self.right, RightPairs):
            return [
                self.right.videos[self.right.texts == row].tolist()
                for row in rows
            ]
        return [
            [] if self.right is None else [int(self.right[row])]
            for row in rows
        ]

    @property
    def columns(self) -> Tensor | None:
        """Tensor: See the class."""
        if isinstance(self.right, RightPairs):
            return self.right.columns
        return self.right
