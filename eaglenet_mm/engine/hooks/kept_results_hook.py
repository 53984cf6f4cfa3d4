"""What hooks share that show the results of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eaglenet_mm.evaluation import KeptScores


class KeptResultsHook(Hook):
    """Keeps features, scores and metrics of an evaluation.

    A subclass calls :meth:`keep` before the evaluation, and :meth:`take`
    after it.
    """

    def __init__(self) -> None:
        self._kept: KeptScores | None = None
        self._evaluation: Any = None
        self._metrics: dict[str, float] = {}

    def keep(self, evaluator: Evaluator) -> None:
        """Keep what the next evaluation of an evaluator makes."""
        self._kept = KeptScores()
        evaluator.metrics.append(self._kept)

    def take(self) -> tuple[KeptScores | None, Any, dict[str, float]]:
        """Give what was kept, and let go of it.

        Returns:
            tuple[KeptScores | None, RetrievalEvaluation, dict]: Scores (None
            unless :meth:`keep` was called), features, and metrics.
        """
        kept = self._kept, self._evaluation, self._metrics
        self._kept, self._evaluation, self._metrics = None, None, {}
        return kept

    def after_scoring(
        self,
        runner: Runner,
        evaluation: Any,
        evaluator: Evaluator,
        metrics: Mapping[str, float],
    ) -> None:
        """Keep the features.

        Args:
            runner (Runner): The runner.
            evaluation (RetrievalEvaluation): With the features.
            evaluator (Evaluator): Of the loop.
            metrics (Mapping[str, float]): The metrics.
        """
        if self._kept is not None and self._kept in evaluator.metrics:
            evaluator.metrics.remove(self._kept)
            self._evaluation, self._metrics = evaluation, dict(metrics)
