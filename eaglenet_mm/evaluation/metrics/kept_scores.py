"""A metric that measures nothing and keeps the matrix, for pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eaglenet_mm.evaluation.functional import RightPairs
from eaglenet_mm.evaluation.metrics.score_matrix import ScoreMatrixMetric


class KeptScores(ScoreMatrixMetric):
    """Keep the score matrix of an evaluation in the main process.

    Stands beside :class:`RetrievalRankMetric` in an evaluator, takes the same
    rows, and adds no key to the metrics.

    Attributes:
        scores (Tensor, optional): After an evaluation, in the main process,
            shape ``(Bt, Bv)``, both in canonical order.
        right (Tensor or RightPairs, optional): Likewise the column of each
            caption's video, shape ``(Bt,)``, or the right pairs where a
            caption has several right videos or none.
        columns (Tensor, optional): Likewise the column of the video that each
            caption stands with, -1 for none, shape ``(Bt,)``.

    Example:
        >>> kept = KeptScores()
        >>> kept.process({}, [dict(caption_index=0, video_index=1, scores=s)
        ...                   for s in [[0.1, 0.9]]])
        >>> kept.evaluate(1), kept.columns
        ({}, tensor([1]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores: Tensor | None = None
        self.right: Tensor | RightPairs | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Put the rows in order; no metric."""
        self.scores, self.right, _ = self._assemble(results)
        return {}

    def right_videos(self, rows: Sequence[int]) -> list[list[int]]:
        """List the columns of the right videos of some captions."""
        right = self.right
        if isinstance(right, RightPairs):
            return [right.videos[right.texts == row].tolist() for row in rows]
        return [[] if right is None else [int(right[row])] for row in rows]

    @property
    def columns(self) -> Tensor | None:
        """Tensor: See the class."""
        right = self.right
        return right.columns if isinstance(right, RightPairs) else right
