"""Directions of metrics (higher or lower is better), asked of the metrics."""

from __future__ import annotations

from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from eaglenet_mm.evaluation import KeptScores, RetrievalRankMetric

_UP = {'greater': 'higher', 'less': 'lower'}


def stated_rule(loop: Any, key: str, given: str | None) -> str | None:
    """Look up the rule of a key in the metrics of a validation loop.

    Metrics with ``better_when(key)`` (``'greater'``, ``'less'``, or None for
    a key that is not their own) and ``known_keys()`` state it. Returns None if
    the key may belong to another metric.
    """
    metrics = [
        metric
        for metric in loop.evaluator.metrics
        if not isinstance(metric, DumpResults | KeptScores)
    ]
    stating = [m for m in metrics if hasattr(m, 'better_when')]
    known = (
        'Known are '
        f'{", ".join(key for m in stating for key in m.known_keys())}, and '
        'those of parts (parts/<name>/...) and noise seeds (..._mean, '
        '..._std).'
    )
    for metric in stating:
        rule = metric.better_when(key)
        if rule is None:
            continue
        for option, is_of_it in (
            ('noise_seeds', key.endswith(('_mean', '_std'))),
            ('shortlist', 'shortlist_recall' in key),
        ):
            if (
                is_of_it
                and isinstance(metric, RetrievalRankMetric)
                and not getattr(loop, option, 0)
            ):
                raise KeyError(
                    f'{key!r} is reported only if val_cfg.{option} is set, '
                    f'which it is not. {known}'
                )
        if given not in (None, rule):
            raise ValueError(
                f'rule={given!r} for {key!r} would keep the worst: '
                f'{type(metric).__name__} states that {_UP[rule]} is better. '
                "Leave 'rule' out; the metric knows it for every key."
            )
        return rule
    if metrics and len(stating) == len(metrics):
        raise KeyError(
            f'{key!r} is no key of the validation metrics that has a better '
            f'direction. {known}'
        )
    return None


def require_key(metrics: dict[str, float], key: str) -> None:
    """Refuse a key that the validation did not report."""
    if key not in metrics:
        raise KeyError(
            f'{key!r} is watched by a hook, but the validation reported '
            f'{", ".join(metrics)}. Watch one of these.'
        )


def check_other_rules(runner: Runner, settled: tuple[type, ...]) -> None:
    """Refuse wrong rules of any other hook or scheduler that watches a metric.

    They call the key ``monitor`` (several: ``key_indicators``) and the rule
    ``rule`` (``rules``), often with a default meant for a loss. Hooks of the
    classes in ``settled`` check their own rules.
    """
    schedulers: Any = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = [one for some in schedulers.values() for one in some]
    for watcher in [*runner.hooks, *schedulers]:
        if isinstance(watcher, settled):
            continue
        keys = [getattr(watcher, 'monitor', None)]
        rules = [getattr(watcher, 'rule', None)]
        if keys == [None]:
            keys = getattr(watcher, 'key_indicators', None) or []
            rules = getattr(watcher, 'rules', None) or []
        for key, rule in zip(keys, rules, strict=False):
            if rule not in _UP or not isinstance(key, str):
                continue
            for metric in runner.val_loop.evaluator.metrics:
                stated = getattr(metric, 'better_when', lambda _: None)(key)
                if stated not in (None, rule):
                    raise ValueError(
                        f'{type(watcher).__name__} watches {key!r} with '
                        f'rule={rule!r}, but {type(metric).__name__} states '
                        f'that {_UP[stated]} is better. Set rule={stated!r}.'
                    )
