"""The table of a comparison: means and spreads over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

#: Columns of the table that are metrics of the test.
METRICS = {
    't2v/R1': 't2v R@1',
    't2v/R5': 't2v R@5',
    't2v/R10': 't2v R@10',
    'v2t/R1': 'v2t R@1',
}
_MISSING = '–'  # noqa: RUF001 a dash, as tables have it
_PREFIXES = ('', ' k', ' M', ' G', ' T')


def comparison_table(
    costs: dict[str, dict[str, Any] | None], runs: Sequence[dict[str, Any]]
) -> str:
    """Make a Markdown table of a comparison.

    Args:
        costs (dict): By config, ``head_parameters``, ``parameters`` and
            ``flops_per_pair``; None where they are not known.
        runs (Sequence[dict]): Every run of these configs.

    Returns:
        str: A line a config. A spread is the sample standard deviation over
        the runs; there is none of one run.
    """
    head = [
        *('config', 'runs', *METRICS.values()),
        *('training', 'memory', 'head / all parameters', 'FLOPs a pair'),
    ]
    rows = [head, ['---', *['--:'] * (len(head) - 1)]]
    for name, cost in costs.items():
        own = [run for run in runs if run['config'] == name]
        rows.append([name, *_cells(own, cost)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Write numbers as mean and sample standard deviation."""
    if not values:
        return _MISSING
    if not all(map(math.isfinite, values)):
        return 'not finite'
    mean = f'{fmean(values):.{digits}f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {stdev(values):.{digits}f}'


def rounded(number: float) -> str:
    """Write a number in three digits with a prefix: ``24.6 k``."""
    for prefix in _PREFIXES:
        if number < 999.5 or prefix == _PREFIXES[-1]:
            break
        number /= 1000
    return f'{number:.3g}{prefix}' if number < 1000 else f'{number:.0f} T'


def _cells(
    runs: Sequence[dict[str, Any]], cost: dict[str, Any] | None
) -> list[str]:
    """Cells of one config, but for its name."""
    done = [run for run in runs if run['status'] == 'finished']
    metrics = [
        mean_and_spread(
            [run['metrics'][key] for run in done if key in run['metrics']]
        )
        for key in METRICS
    ]
    minutes = _known(done, 'train_seconds', 60)
    memory = _known(done, 'peak_bytes', 2**30)
    sizes = [_MISSING, _MISSING]
    if cost is not None:
        sizes = [
            f'{rounded(cost["head_parameters"])} / '
            f'{rounded(cost["parameters"])}',
            rounded(cost['flops_per_pair']),
        ]
    return [
        f'{len(done)} of {len(runs)}',
        *metrics,
        f'{mean_and_spread(minutes)} min' if minutes else _MISSING,
        f'{fmean(memory):.2f} GiB' if memory else _MISSING,
        *sizes,
    ]


def _known(
    runs: Sequence[dict[str, Any]], key: str, unit: float
) -> list[float]:
    return [run[key] / unit for run in runs if run[key] is not None]
