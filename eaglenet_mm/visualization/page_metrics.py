"""The metrics of an evaluation as a table, and what it lacked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from .page_parts import table
from .results_data import RetrievalResults

#: Directions by the prefix of their metrics.
DIRECTIONS = (('t2v', 'text to video'), ('v2t', 'video to text'))
_COLUMNS = ('R1', 'R5', 'R10', 'R50', 'MdR', 'MnR', 'ties')
#: Only where a caption has several right videos or none.
_SEVERAL = ('mAP10', 'nDCG10', 'unanswerable')


def incomplete(results: RetrievalResults) -> str:
    """Say what an evaluation lacked.

    Args:
        results (RetrievalResults): Of the evaluation.

    Returns:
        str: A sentence, '' if nothing lacked.
    """
    lacks = []
    for name in ('videos', 'texts'):
        expected = results.metrics.get(f'{name}_expected')
        found = results.metrics.get(f'{name}_found')
        if expected is not None and found is not None:
            lacks.append(f'{found:.0f} of {expected:.0f} {name}')
    return f'Not the complete set: {", ".join(lacks)}.' if lacks else ''


def metrics_section(results: RetrievalResults) -> Iterator[str]:
    """Write both directions, raw and after post-processing.

    Args:
        results (RetrievalResults): Of an evaluation.

    Yields:
        str: Markup.
    """
    metrics = results.metrics
    several = [
        name
        for name in _SEVERAL
        if any(key.endswith(f'/{name}') for key in metrics)
    ]
    rows = []
    for place, kind in _measured(metrics):
        for key, name in DIRECTIONS:
            if f'{place}{key}{kind}/R1' not in metrics:
                continue
            name += f' after {kind[1:]}' if kind else ''
            name += f', {place.split("/")[1]}' if place else ''
            cells = [f'<td>{escape(name)}</td>']
            for column in (*_COLUMNS, *several):
                value = metrics.get(f'{place}{key}{kind}/{column}')
                mark = ' class="main"' if column == 'R1' else ''
                text = _metric(column, value)
                cells.append(f'<td{mark}>{text}</td>')
            cells.append(_interval(metrics, f'{place}{key}{kind}'))
            rows.append(cells)
    head = ['', 'R@1', 'R@5', 'R@10', 'R@50', 'median rank', 'mean rank']
    head += ['ties', *several, 'R@1 interval']
    if not any(f'{key}/R1_low' in metrics for key, _ in DIRECTIONS):
        head, rows = head[:-1], [row[:-1] for row in rows]
    yield '<h2 id="metrics">Metrics</h2>'
    yield f'<div class="panel">{table(head, rows)}</div>'
    if 'Rsum' in metrics:
        yield (
            f'<p class="note">Rsum {metrics["Rsum"]:.2f}. Recalls in percent; '
            'ties count against the right answer.</p>'
        )


def _measured(metrics: dict[str, float]) -> list[tuple[str, str]]:
    """List where metrics are from: part of the set, and post-processing."""
    found = set()
    for key in metrics:
        match = re.fullmatch(r'(|parts/[^/]+/)(?:t2v|v2t)([^/]*)/R1', key)
        if match:
            found.add((match[1], match[2]))
    return sorted(found)


def _metric(name: str, value: float | None) -> str:
    if value is None:
        return ''
    whole = ('ties', 'unanswerable')
    return f'{value:.0f}' if name in whole else f'{value:.2f}'


def _interval(metrics: dict[str, float], key: str) -> str:
    low, high = metrics.get(f'{key}/R1_low'), metrics.get(f'{key}/R1_high')
    if low is None or high is None:
        return '<td></td>'
    return f'<td>{low:.2f} to {high:.2f}</td>'
