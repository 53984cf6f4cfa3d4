"""Tables in Markdown, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows with equal keys as a table in Markdown."""
    names = list(rows[0])
    cells = [names, *([cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        ' | '.join(x.rjust(w) for x, w in zip(row, widths, strict=True))
        for row in cells
    ]
    lines.insert(1, ' | '.join('-' * (w - 1) + ':' for w in widths))
    return '\n'.join(f'| {line} |' for line in lines)


def cell(value: Any) -> str:
    """Write a number in three digits, and what was not measured as a dash."""
    if value is None:
        return '-'
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 1000:
        return f'{value:.0f}'
    is_plain = not value or abs(value) >= 1e-3
    return f'{value:.3g}' if is_plain else f'{value:.1e}'
