"""Warm-up and decay over the overall progress, as in BertAdam's schedules."""

from __future__ import annotations

import math
import warnings
from typing import Any

from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler

from eaglenet_mm.registry import PARAM_SCHEDULERS


def schedule_factor(x: float, warmup_ratio: float, decay: str) -> float:
    """Compute the factor of the learning rate at some progress.

    Args:
        x (float): Progress, 0 at the first step and 1 at the end.
        warmup_ratio (float): Share of the progress with linear warm-up from
            0.
        decay (str): After the warm-up: ``'cosine'``,
            ``0.5 (1 + cos(pi x))``; ``'linear'``,
            ``max((x - 1) / (warmup_ratio - 1), 0)``; ``'constant'``, 1.

    Returns:
        float: Factor in [0, 1]. The cosine is a function of the overall
        progress and does not restart after the warm-up, so the factor jumps
        there.
    """
    if x < warmup_ratio:
        return x / warmup_ratio
    if decay == 'cosine':
        return 0.5 * (1.0 + math.cos(math.pi * x))
    if decay == 'linear':
        return max((x - 1.0) / (warmup_ratio - 1.0), 0.0)
    return 1.0


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """Linear warm-up, then cosine, linear or no decay until the end.

    The factor of update ``n``, counted from 0, is ``schedule_factor(n /
    total)``, so the first update has rate 0, as in the release. MMEngine steps
    schedulers once per iteration even under gradient accumulation; this one
    reads the wrapper's accumulation count and counts updates. The total is
    then that of the release, ``(iterations per epoch + a - 1) / a * epochs``
    with true division. The state is a step count, so resuming is exact.

    Args:
        optimizer (OptimWrapper or Optimizer): Optimiser to schedule; the
            ``lr`` of a group is its peak rate.
        warmup_ratio (float): Share of all updates spent in warm-up, in
            [0, 1). Default: 0.1.
        decay (str): ``'cosine'``, ``'linear'`` or ``'constant'``. Default:
            ``'cosine'``.
        total_steps (float, optional): Updates in the whole schedule. Default:
            derived from ``begin``, ``end`` and the accumulation count.
        epoch_length (int, optional): Iterations per epoch, which affect only
            the total under accumulation. MMEngine passes it with
            ``convert_to_iter_based=True``.
        begin (int): First iteration of the schedule. Default: 0.
        end (int): Iteration after the last; the Runner sets it to the end of
            training. Required unless ``total_steps`` is given.
        last_step (int): Index of the last step. Default: -1, a new run.
        by_epoch (bool): Must end up False: set ``by_epoch=False``, or
            ``convert_to_iter_based=True`` with values in epochs.
        verbose (bool): Log every change. Default: False.

    Raises:
        ValueError: If an argument is out of range, the schedule would be by
            epoch, or its length is unknown.

    Example:
        >>> param_scheduler = dict(
        ...     type='WarmupCosineLR', warmup_ratio=0.1, by_epoch=True,
        ...     convert_to_iter_based=True)
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup_ratio: float = 0.1,
        decay: str = 'cosine',
        total_steps: float | None = None,
        epoch_length: int | None = None,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if by_epoch:
            raise ValueError(
                'WarmupCosineLR changes the rate in every update, but got '
                'by_epoch=True. Set by_epoch=False, or add '
                'convert_to_iter_based=True.'
            )
        if not 0 <= warmup_ratio < 1:
            raise ValueError(
                f"'warmup_ratio' must lie in [0, 1), but got {warmup_ratio}."
            )
        if decay not in ('cosine', 'linear', 'constant'):
            raise ValueError(
                "'decay' must be 'cosine', 'linear' or 'constant', but got "
                f"'{decay}'."
            )
        if total_steps is None and end == INF:
            raise ValueError(
                "WarmupCosineLR needs the length of the schedule: set 'end' "
                "(iterations) or 'total_steps' (updates)."
            )
        self.warmup_ratio = warmup_ratio
        self.decay = decay
        self.accumulative_counts = int(
            getattr(optimizer, '_accumulative_counts', 1)
        )
        if total_steps is None:
            iterations = end - begin
            epochs = iterations / epoch_length if epoch_length else 1.0
            extra = epochs * (self.accumulative_counts - 1)
            total_steps = (iterations + extra) / self.accumulative_counts
        if not total_steps > 0:
            raise ValueError(
                f"'total_steps' must be above 0, but got {total_steps}."
            )
        self.total_steps = float(total_steps)
        steps = dict(begin=begin, end=end, last_step=last_step)
        super().__init__(
            optimizer, 'lr', **steps, by_epoch=by_epoch, verbose=verbose
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> WarmupCosineLR:
        """Build an iteration-based schedule from values in epochs.

        MMEngine calls this for ``convert_to_iter_based=True``.

        Raises:
            ValueError: If ``by_epoch`` is False or the epoch length is
                missing.
        """
        if not by_epoch or not epoch_length or epoch_length < 1:
            raise ValueError(
                'convert_to_iter_based needs by_epoch=True and a positive '
                f'epoch_length, but got by_epoch={by_epoch} and '
                f'epoch_length={epoch_length}.'
            )
        return cls(
            *args,
            begin=int(begin * epoch_length),
            end=end if end == INF else int(end * epoch_length),
            by_epoch=False,
            epoch_length=epoch_length,
            **kwargs,
        )

    def step(self) -> None:
        """Set the rate of the next iteration."""
        with warnings.catch_warnings():
            if self.accumulative_counts > 1:
                # rightly: under accumulation the optimiser steps later
                warnings.filterwarnings(
                    'ignore', message='Detected call of `scheduler.step'
                )
            super().step()

    def _get_value(self) -> list[float]:
        """Compute the rates of all groups for the current iteration."""
        updates_done = self.last_step // self.accumulative_counts
        factor = schedule_factor(
            updates_done / self.total_steps, self.warmup_ratio, self.decay
        )
        return [base * factor for base in self.base_values]
