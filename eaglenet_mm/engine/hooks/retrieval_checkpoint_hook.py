"""Checkpoint hook that knows which metrics are better when higher."""

from __future__ import annotations

import logging
import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner

from eaglenet_mm.engine.hooks.metric_rules import require_key, stated_rule
from eaglenet_mm.engine.hooks.retrieval_early_stopping_hook import (
    RetrievalEarlyStoppingHook,
)
from eaglenet_mm.registry import HOOKS


@HOOKS.register_module(name=['CheckpointHook', 'RetrievalCheckpointHook'])
class RetrievalCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` with the rule taken from the metric.

    Configs with ``default_scope = 'eaglenet_mm'`` get it under the name
    ``CheckpointHook``. Differs from MMEngine's:

    - ``save_best`` needs no ``rule``: the metric states it for each key. A
      contradicting rule and an unknown key are refused before the first step.
    - No checkpoint is called best before the optimiser has made a step, or by
      a validation outside of training.
    - When resumed in another folder, it removes outdated best checkpoints of
      that folder only. MMEngine's follows the path stored in the checkpoint
      and deletes from the original folder.
    - When resumed with another ``save_best``, it restarts the comparison
      instead of comparing different metrics.
    - With an ``EarlyStoppingHook``, each validation updates the checkpoint of
      its step, so that a resumed run stops where an uninterrupted one does.
    - With ``FlexibleRunner``, a checkpoint rewritten after a validation keeps
      its epoch; MMEngine's counts one too many.

    As in MMEngine, best checkpoints hold no optimiser state: it is twice the
    size of the weights, and these files are for testing and publishing.

    Args:
        *args (Any): See :class:`mmengine.hooks.CheckpointHook`.
        **kwargs (Any): Likewise.

    Example:
        >>> default_hooks = dict(checkpoint=dict(
        ...     type='CheckpointHook', interval=1, save_best='t2v/R1'))
    """

    rules: list[str | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._val_loop: Any = None  # set only during training
        self._position: dict[str, int] | None = None
        self._written = False
        super().__init__(*args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Settle the rules and the state of a resumed run.

        Raises:
            KeyError: If ``save_best`` names a key that no metric reports.
            ValueError: If a rule contradicts the metric, or the loop would
                never validate.
        """
        super().before_train(runner)
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            print_log(
                'CheckpointHook counts epochs, but an IterBasedTrainLoop has '
                'none: it will save only at the end. Set '
                'default_hooks.checkpoint.by_epoch=False and an interval in '
                'iterations.',
                logger='current',
                level=logging.WARNING,
            )
        self._val_loop = runner.val_loop
        if self._val_loop is None:
            return
        _check_validation(runner.train_loop)
        if self.save_best:
            self._init_rule(self.rules, self.key_indicators)
            self._own_best(runner)

    def after_train(self, runner: Runner) -> None:
        """Finish the training."""
        super().after_train(runner)
        self._val_loop = None

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Save the best checkpoint, once the model has been trained.

        Raises:
            KeyError: If the validation did not report the key.
        """
        if self._val_loop is None:  # not during training
            return
        # runner.iter counts iterations, not steps, under accumulation
        every = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if runner.iter < min(every, runner.max_iters) or runner.iter == 0:
            print_log(
                'No checkpoint is called best by this validation: the '
                'optimiser has made no step yet.',
                logger='current',
            )
            return
        for key in self.key_indicators if self.save_best else []:
            if key != 'auto' and metrics:
                require_key(metrics, key)
        self._position = dict(epoch=runner.epoch, iter=runner.iter)
        self._written = False
        super().after_val_epoch(runner, metrics or {})
        step = runner.epoch if self.by_epoch else runner.iter
        last = osp.basename(self.last_ckpt or '')
        if (
            not self._written
            and last == self.filename_tmpl.format(step)
            and any(
                isinstance(hook, RetrievalEarlyStoppingHook)
                for hook in runner.hooks
            )
        ):  # its checkpoint also holds what its validation decided
            super()._save_checkpoint_with_step(
                runner, step, dict(self._position)
            )
        self._position = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Correct the position counted by ``FlexibleRunner``."""
        if self._position is not None:
            checkpoint['meta'].update(self._position)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        """Write a checkpoint and note that it was written."""
        super()._save_checkpoint_with_step(runner, step, meta)
        self._written = True

    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        """Publish a checkpoint if there is one."""
        if ckpt_path is not None:
            super()._publish_model(runner, ckpt_path)

    def _init_rule(
        self, rules: Sequence[str | None], key_indicators: Sequence[str]
    ) -> None:
        """Keep the rules as given, and settle them once metrics are known.

        MMEngine calls this in the constructor, and when ``'auto'`` has found
        its key.
        """
        if len(rules) == 1:
            rules = list(rules) * len(key_indicators)
        settled = []
        for key, given in zip(key_indicators, rules, strict=True):
            rule = given
            if key != 'auto' and self._val_loop is not None:
                rule = stated_rule(self._val_loop, key, given)
                if rule is None:  # a metric without better_when
                    super()._init_rule([given], [key])
                    rule = self.rules[0]
            elif given is not None and given not in self.rule_map:
                raise ValueError(
                    f"'rule' must be 'greater', 'less' or None, but got "
                    f'{given!r}.'
                )
            if rule is not None:
                self.is_better_than[key] = self.rule_map[rule]
            settled.append(rule)
        self.rules, self.key_indicators = settled, list(key_indicators)

    def _own_best(self, runner: Runner) -> None:
        """Move paths of a resumed run into this folder, or forget them."""
        hub = runner.message_hub
        single = len(self.key_indicators) == 1
        for key in self.key_indicators:
            suffix = '' if single else f'_{key}'
            path = hub.runtime_info.get(f'best_ckpt{suffix}')
            if path is None:
                continue
            name = osp.basename(path)
            start = f'best_{key}_'.replace('/', '_')
            if key != 'auto' and not name.startswith(start):
                print_log(
                    f'The resumed run kept {name}; this one keeps the best '
                    f'of {key!r} and restarts the comparison.',
                    logger='current',
                    level=logging.WARNING,
                )
                hub.pop_info(f'best_score{suffix}')
                own = None
            else:
                own = self.file_backend.join_path(self.out_dir, name)
                if not self.file_backend.exists(own):  # not copied
                    own = None
            hub.update_info(f'best_ckpt{suffix}', own)
            if single:
                self.best_ckpt_path = own
            else:
                self.best_ckpt_path_dict[key] = own


def _check_validation(loop: Any) -> None:
    """Refuse a training loop whose validation would never run."""
    unit = 'iters' if isinstance(loop, IterBasedTrainLoop) else 'epochs'
    length = getattr(loop, f'max_{unit}')
    if getattr(loop, 'val_interval', 1) < 1:
        raise ValueError(
            f'train_cfg.val_interval must be at least 1, but got '
            f'{loop.val_interval}. To train without validation, use '
            '--no-validate.'
        )
    if getattr(loop, 'val_begin', 1) > length:
        raise ValueError(
            f'train_cfg.val_begin is {loop.val_begin}, but max_{unit} is '
            f'{length}: nothing would be validated, and no checkpoint called '
            'best. Make it smaller, or train with --no-validate.'
        )
