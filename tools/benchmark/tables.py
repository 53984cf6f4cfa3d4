"""Tables in Markdown, without torch."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as a table in Markdown; nested figures are left out."""
    nested = {k for x in rows for k, v in x.items() if isinstance(v, dict)}
    names = dict.fromkeys(k for x in rows for k in x if k not in nested)
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    columns = list(zip(names, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        ' | '.join(x.rjust(w) for x, w in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
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
