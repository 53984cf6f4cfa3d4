"""Early stopping with the rule taken from the metric."""

from __future__ import annotations

from math import inf
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from eaglenet_mm.engine.hooks.metric_rules import require_key, stated_rule
from eaglenet_mm.registry import HOOKS


@HOOKS.register_module(
    name=['EarlyStoppingHook', 'RetrievalEarlyStoppingHook']
)
class RetrievalEarlyStoppingHook(EarlyStoppingHook):
    """MMEngine's ``EarlyStoppingHook`` with the rule taken from the metric.

    Configs with ``default_scope = 'eaglenet_mm'`` get it under the name
    ``EarlyStoppingHook``. Differs from MMEngine's: the metric states the rule
    for each key; a contradicting rule and an unknown key are refused before
    the first step, where MMEngine's warns and never stops; and a resumed run
    continues with the best value and the patience already used.

    Args:
        monitor (str): Key of the metrics.
        rule (str, optional): Needed only for metrics that do not state it.
        **kwargs (Any): See :class:`mmengine.hooks.EarlyStoppingHook`.

    Example:
        >>> custom_hooks = [
        ...     dict(type='EarlyStoppingHook', monitor='t2v/R1', patience=3)]
    """

    # before CheckpointHook, whose files are to hold the state of this hook
    priority = 'LOW'

    min_delta: float

    def __init__(
        self, monitor: str, rule: str | None = None, **kwargs: Any
    ) -> None:
        self._given = rule
        self._key = f'early_stopping_{monitor}'  # in the message hub
        super().__init__(monitor, rule or 'greater', **kwargs)
        self._margin = abs(self.min_delta)

    def before_train(self, runner: Runner) -> None:
        """Settle the rule, and restore the state of a resumed run.

        Raises:
            KeyError: If no metric reports the key.
            ValueError: If the rule contradicts the metric, or is missing for a
                metric that does not state it.
        """
        if runner.val_loop is None:
            return
        rule = stated_rule(runner.val_loop, self.monitor, self._given)
        self.rule = rule or self._given or self._init_rule(self.monitor)
        sign = 1 if self.rule == 'greater' else -1
        self.min_delta, self.best_score = sign * self._margin, -sign * inf
        self.wait_count = 0
        state = runner.message_hub.runtime_info.get(self._key)
        if state is not None:
            self.best_score, self.wait_count = state
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            print_log(
                'The resumed run had been stopped early: the last '
                f'{self.wait_count} values of {self.monitor!r} did not '
                'improve. Set a larger patience to continue.',
                logger='current',
            )

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float]
    ) -> None:
        """Decide whether to stop the training.

        Raises:
            KeyError: If the validation did not report the key.
        """
        require_key(metrics, self.monitor)
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(
            self._key, [self.best_score, self.wait_count]
        )
