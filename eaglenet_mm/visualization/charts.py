"""The charts of a page, as SVG: histogram, curves, maps, matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .results_data import ConfusionMatrix, Points, Projection
from .svg_parts import label, line, nice_ticks, short_number, svg, tag

#: Bins of ranks: first and last rank, both included.
BINS = (
    (1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 50), (51, 100),
    (101, None),
)  # fmt: skip


def rank_shares(ranks: Sequence[int]) -> list[tuple[str, float]]:
    """Count ranks in bins.

    Args:
        ranks (Sequence[int]): From 1.

    Returns:
        list[tuple[str, float]]: Name and percent of each bin.
    """
    shares = []
    for first, last in BINS:
        if last is None:
            name, hits = f'>{first - 1}', [r for r in ranks if r >= first]
        else:
            name = str(first) if first == last else f'{first}\N{EN DASH}{last}'
            hits = [rank for rank in ranks if first <= rank <= last]
        shares.append((name, 100.0 * len(hits) / max(1, len(ranks))))
    return shares


def rank_histogram(series: Mapping[str, Sequence[int]]) -> str:
    """Draw the ranks of both directions side by side.

    Args:
        series (Mapping): Ranks by the name of the direction.

    Returns:
        str: SVG.
    """
    width, height, left, bottom, top = 460, 260, 40, 40, 22
    shares = {name: rank_shares(ranks) for name, ranks in series.items()}
    most = max(value for bars in shares.values() for _, value in bars)
    ticks = nice_ticks(0, most)
    scale = (height - bottom - top) / ticks[-1]
    step = (width - left - 8) / len(BINS)
    parts = []
    for tick in ticks:
        y = height - bottom - tick * scale
        parts.append(line(left, y, width - 8, y, 'grid'))
        parts.append(label(f'{tick:g}%', left - 6, y + 4, anchor='end'))
    for place, (name, _) in enumerate(next(iter(shares.values()))):
        x = left + (place + 0.5) * step
        parts.append(label(name, x, height - bottom + 16))
    bar = step * 0.78 / len(shares)
    for number, (name, bars) in enumerate(shares.items()):
        for place, (bin_name, value) in enumerate(bars):
            x = left + step * (place + 0.11) + number * bar
            y = height - bottom - value * scale
            rect = tag(
                'rect',
                tag('title', escape(f'{name}, rank {bin_name}: {value:.1f}%')),
                x=x,
                y=y,
                width=bar - 1.5,
                height=value * scale,
                rx=1.5,
                cls=f'series{number}',
            )
            parts.append(rect)
            if value >= most / 12:
                text = f'{value:.0f}'
                parts.append(
                    label(text, x + bar / 2 - 0.75, y - 4, cls='tiny')
                )
    axis = 'rank of the right answer'
    parts.append(label(axis, (left + width) / 2, height - 6, cls='axis'))
    return svg(width, height, parts, 'Histogram of ranks')


def line_chart(curves: Mapping[str, Points], title: str, unit: str) -> str:
    """Draw curves over iterations.

    Args:
        curves (Mapping): Points by name; the first name is drawn boldest.
        title (str): Of the chart.
        unit (str): Behind the numbers of the y axis.

    Returns:
        str: SVG.
    """
    width, height, left, bottom, top = 460, 260, 48, 40, 12
    points = [point for curve in curves.values() for point in curve]
    x_ticks = nice_ticks(0, max(x for x, _ in points), 6)
    values = [y for _, y in points]
    y_ticks = nice_ticks(min(0.0, *values), max(values))
    x_scale = (width - left - 12) / max(x for x, _ in points)
    y_scale = (height - bottom - top) / (y_ticks[-1] - y_ticks[0])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + x * x_scale,
            height - bottom - (y - y_ticks[0]) * y_scale,
        )

    parts = []
    for tick in y_ticks:
        _, y = place(0, tick)
        parts.append(line(left, y, width - 12, y, 'grid'))
        text = f'{short_number(tick)}{unit}'
        parts.append(label(text, left - 6, y + 4, anchor='end'))
    for tick in x_ticks:
        x, y = place(tick, y_ticks[0])
        if x <= width - 11:
            parts.append(label(short_number(tick), x, y + 16))
    parts.append(
        label('iteration', (left + width) / 2, height - 6, cls='axis')
    )
    for number, (name, curve) in enumerate(curves.items()):
        places = [place(x, y) for x, y in curve]
        joined = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
        parts.append(
            tag('polyline', points=joined, cls=f'curve series{number}')
        )
        if len(curve) <= 40:
            for (x, y), (at, value) in zip(places, curve, strict=True):
                text = f'{name} at {at:g}: {value:.4g}{unit}'
                dot = tag('title', escape(text))
                parts.append(
                    tag(
                        'circle', dot, cx=x, cy=y, r=3.0, cls=f'series{number}'
                    )
                )
    return svg(width, height, parts, title)


def embedding_map(
    projection: Projection, captions: Sequence[str], ranks: Sequence[int]
) -> str:
    """Draw texts and their videos, each pair joined by a line.

    Args:
        projection (Projection): What to draw.
        captions (Sequence[str]): All captions of the set.
        ranks (Sequence[int]): Their ranks; the lines of failures differ.

    Returns:
        str: SVG.
    """
    size, margin = 560, 18
    both = projection.texts + projection.videos
    lows = [min(point[axis] for point in both) for axis in (0, 1)]
    highs = [max(point[axis] for point in both) for axis in (0, 1)]
    span = max(high - low for low, high in zip(lows, highs, strict=True))
    scale = (size - 2 * margin) / (span or 1.0)
    middle = [(low + high) / 2 for low, high in zip(lows, highs, strict=True)]

    def place(point: Sequence[float]) -> tuple[float, float]:
        return (
            size / 2 + (point[0] - middle[0]) * scale,
            size / 2 - (point[1] - middle[1]) * scale,
        )

    frame = tag(
        'rect', x=1, y=1, width=size - 2, height=size - 2, rx=8, cls='frame'
    )
    links, marks = [], []
    for row, text, video in zip(
        projection.rows, projection.texts, projection.videos, strict=True
    ):
        (x, y), (u, v) = place(text), place(video)
        right = ranks[row] == 1
        links.append(line(x, y, u, v, 'link' if right else 'link missed'))
        said = f'{captions[row]} (rank {ranks[row]})'
        hint = tag('title', escape(said))
        marks.append(
            tag('rect', hint, x=u - 3.5, y=v - 3.5, width=7, height=7,
                rx=1, cls='series1')
        )  # fmt: skip
        marks.append(tag('circle', hint, cx=x, cy=y, r=3.8, cls='series0'))
    return svg(size, size, [frame, *links, *marks], projection.title)


def matrix_chart(
    matrix: ConfusionMatrix, captions: Sequence[str], width: int = 1080
) -> str:
    """Draw mean scores among confused videos, with the counts of firsts.

    Args:
        matrix (ConfusionMatrix): Not empty.
        captions (Sequence[str]): All captions of the set.
        width (int): Of the chart. Defaults to 1080.

    Returns:
        str: SVG: rows are captions of a video, columns videos.
    """
    count, cell, top = len(matrix.columns), 36, 26
    left = width - count * cell - 4
    values = [value for row in matrix.scores for value in row]
    low, high = min(values), max(values)
    room = int((left - 44) / 6.3)  # characters beside the cells
    parts = []
    for place, row in enumerate(matrix.rows):
        y = top + place * cell
        caption = captions[row]
        text = caption if len(caption) <= room else caption[: room - 1] + '…'
        parts.append(label(f'{place + 1}', left - 10, y + 22, anchor='end'))
        parts.append(label(text, left - 36, y + 22, cls='name', anchor='end'))
        x = left + (place + 0.5) * cell
        parts.append(label(f'{place + 1}', x, top - 9))
        for other in range(count):
            value = matrix.scores[place][other]
            hits = matrix.firsts[place][other]
            share = (value - low) / ((high - low) or 1.0)
            hint = (
                f'captions of {place + 1} with video {other + 1}: mean score '
                f'{value:.3g}, first for {hits}'
            )
            parts.append(
                tag(
                    'rect',
                    tag('title', escape(hint)),
                    x=left + other * cell + 1,
                    y=y + 1,
                    width=cell - 2,
                    height=cell - 2,
                    rx=3,
                    cls='cell own' if other == place else 'cell',
                    fill_opacity=round(0.06 + 0.94 * share**2, 3),
                )
            )
            if hits:
                parts.append(
                    label(
                        str(hits),
                        left + (other + 0.5) * cell,
                        y + 23,
                        cls='hits dark' if share > 0.7 else 'hits',
                    )
                )
    return svg(width, top + count * cell + 4, parts, 'Confused captions')
