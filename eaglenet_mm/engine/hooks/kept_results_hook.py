"""Base of the hooks that show evaluation results."""

from __future__ import annotations

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook

from eaglenet_mm.engine import loops
from eaglenet_mm.evaluation import KeptScores
from eaglenet_mm.visualization.set_catalogue import check_dataset


class KeptResultsHook(Hook):
    """Hook that keeps features, scores and metrics of an evaluation.

    Subclasses call :meth:`keep` before the evaluation and :meth:`take` after.
    """

    # after the hooks that synchronise processes
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._kept: KeptScores | None = None
        self._found: tuple[Any, dict[str, float]] = (None, {})

    def check(self, loop: Any, needed: str) -> None:
        """Refuse a loop or a dataset whose results cannot be shown."""
        if not isinstance(loop, getattr(loops, needed)):
            raise TypeError(
                f"{type(self).__name__} needs a loop of type='{needed}', but "
                f'it is {type(loop).__name__}. Set it in val_cfg or test_cfg.'
            )
        check_dataset(loop.dataloader.dataset)

    def keep(self, evaluator: Evaluator) -> None:
        """Keep the results of the next evaluation of an evaluator."""
        self._kept = KeptScores()
        evaluator.metrics.append(self._kept)

    def take(self) -> tuple[KeptScores | None, Any, dict[str, float]]:
        """Return scores, RetrievalEvaluation and metrics, and forget them.

        The first is None or has no ``scores`` if nothing was kept, or on
        another process than the main one.
        """
        results = self._kept, *self._found
        self._kept, self._found = None, (None, {})
        return results

    def after_scoring(
        self,
        runner: Any,
        evaluation: Any,
        evaluator: Evaluator,
        metrics: dict[str, float],
    ) -> None:
        """Keep features and metrics; called by this package's loops."""
        if self._kept is not None and self._kept in evaluator.metrics:
            evaluator.metrics.remove(self._kept)
            self._found = evaluation, dict(metrics)
