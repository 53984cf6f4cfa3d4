"""Pieces of SVG that the charts of a page share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape


def tag(
    name: str, content: str = '', /, **attributes: str | float | None
) -> str:
    """Write an element.

    Args:
        name (str): Of the element.
        content (str): What is inside, already escaped.
        **attributes: ``cls`` is the class; underscores become dashes; None
            leaves one out. Values are escaped.

    Returns:
        str: Markup.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        key = 'class' if key == 'cls' else key.replace('_', '-')
        if isinstance(value, float):
            value = f'{value:.2f}'.rstrip('0').rstrip('.')
        parts.append(f'{key}="{escape(str(value))}"')
    return f'<{" ".join(parts)}>{content}</{name}>'


def label(
    text: str,
    x: float,
    y: float,
    *,
    cls: str = '',
    anchor: str = 'middle',
    transform: str | None = None,
) -> str:
    """Write a text at a place; it is escaped here."""
    return tag(
        'text',
        escape(text),
        x=float(x),
        y=float(y),
        cls=cls or None,
        text_anchor=anchor,
        transform=transform,
    )


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """Draw a line."""
    return tag(
        'line', x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), cls=cls
    )


def svg(width: int, height: int, parts: Iterable[str], title: str) -> str:
    """Put parts into a picture that scales with the page."""
    content = tag('title', escape(title)) + ''.join(parts)
    return tag(
        'svg',
        content,
        viewBox=f'0 0 {width} {height}',
        role='img',
        cls='chart',
        style=f'max-width:{round(width * 1.25)}px',
    )


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round numbers that span a range.

    Args:
        low (float): Least value to show.
        high (float): Greatest value to show.
        count (int): About how many. Defaults to 5.

    Returns:
        list[float]: Ascending, at equal distances, from at most ``low`` to
        at least ``high``.
    """
    if not high > low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def short_number(value: float) -> str:
    """Write a number of an axis."""
    if abs(value) >= 1000 and value == int(value):
        thousands = value / 1000
        return f'{thousands:g}k'
    return f'{value:g}'
