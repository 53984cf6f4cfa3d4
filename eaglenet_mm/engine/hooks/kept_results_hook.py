"""What hooks share that show the results of an evaluation."""

from __future__ import annotations

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook

from eaglenet_mm.evaluation import KeptScores


class KeptResultsHook(Hook):
    """Keeps features, scores and metrics of an evaluation.

    An heir calls :meth:`keep` before the evaluation and :meth:`take` after.
    """

    # after hooks in which processes wait for each other
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._kept: KeptScores | None = None
        self._found: tuple[Any, dict[str, float]] = (None, {})

    def keep(self, evaluator: Evaluator) -> None:
        """Keep what the next evaluation of an evaluator makes."""
        self._kept = KeptScores()
        evaluator.metrics.append(self._kept)

    def take(self) -> tuple[KeptScores | None, Any, dict[str, float]]:
        """Scores, RetrievalEvaluation and metrics; lets go of them.

        The scores are None if nothing was kept, or in another process than
        the main one.
        """
        kept, found = self._kept, self._found
        self._kept, self._found = None, (None, {})
        if kept is None or kept.scores is None:
            return None, None, {}
        return kept, *found

    def after_scoring(
        self,
        runner: Any,
        evaluation: Any,
        evaluator: Evaluator,
        metrics: dict[str, float],
    ) -> None:
        """Keep the features; called by our loops."""
        if self._kept is not None and self._kept in evaluator.metrics:
            evaluator.metrics.remove(self._kept)
            self._found = evaluation, dict(metrics)
