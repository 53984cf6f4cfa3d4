"""Charts drawn with matplotlib, inlined into pages as SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from eaglenet_mm.visualization.results_data import Points, Projection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Rank bins of histograms: first and last rank, inclusive.
BINS = (
    (1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 50), (51, 100),
    (101, None),
)  # fmt: skip
SERIES = ('#2557d6', '#e08a1e', '#7b5bd6', '#1b9e9e', '#b8478b', '#7a8699')
_SOFT, _RULE, _BAD = '#667085', '#e3e7ee', '#c8322b'
#: CSS variables that replace colours, for dark mode.
_VARIABLES = {
    **{color: f'var(--c{i})' for i, color in enumerate(SERIES)},
    **{_SOFT: 'var(--soft)', _RULE: 'var(--rule)', _BAD: 'var(--bad)'},
}
_STYLE = {
    'axes.axisbelow': True,
    'axes.edgecolor': _RULE,
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.labelcolor': _SOFT,
    'axes.spines.left': False,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.size': 8.5,
    'grid.color': _RULE,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'eaglenet_mm',
    'text.color': _SOFT,
    'text.parse_math': False,
    'xtick.color': _SOFT,
    'xtick.major.size': 0,
    'ytick.color': _SOFT,
    'ytick.major.size': 0,
}
_HINT = 'hint-'


@contextmanager
def chart_style() -> Iterator[None]:
    """Use the style of the pages, whatever the user's settings."""
    import matplotlib.style

    with matplotlib.style.context(['default', _STYLE]):
        yield


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout='constrained')
    return figure, figure.subplots()


def _hint(text: str) -> str:
    """Encode a tooltip as an SVG id, safe for any text."""
    return _HINT + text.encode(errors='replace').hex()


def _to_svg(figure: Figure, title: str) -> Markup:
    """Convert to SVG that scales with the page; deterministic."""
    file = io.StringIO()
    unstated = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(file, format='svg', transparent=True, metadata=unstated)
    _, _, text = re.sub(r'\s*\n\s*', ' ', file.getvalue()).partition('<svg ')
    head, _, drawn = text.partition('>')
    for pattern, other in (
        (r'<(style|clipPath)\b.*?</\1>', ''),
        (r' clip-path="[^"]*"', ''),
        (r"font-family: '[^;\"]*;? ?", ''),
        (r' id="[a-zA-Z][\w.]*_\d+"', ''),  # except ids of markers
        ('> +<', '><'),
    ):
        drawn = re.sub(pattern, other, drawn)
    for color, variable in _VARIABLES.items():
        drawn = drawn.replace(color, variable)
    # last, so that the replacements above do not touch text from data
    drawn = re.sub(
        rf'<g id="{_HINT}(\w*)">',
        lambda found: Markup('<g><title>{}</title>').format(
            bytes.fromhex(found[1]).decode()
        ),
        drawn,
    )
    return Markup(
        '<svg class="chart" role="img" viewBox="{}" style="max-width:{}px">'
        '<title>{}</title>{}'
    ).format(
        head.partition('viewBox="')[2].partition('"')[0],
        round(120 * figure.get_figwidth()),
        title,
        Markup(drawn),
    )


def rank_shares(ranks: Sequence[int]) -> list[tuple[str, float]]:
    """Name and percentage of each rank bin."""
    shares = []
    for first, last in BINS:
        name = f'{first}\N{EN DASH}{last}' if last != first else str(first)
        if last is None:
            name, last = f'>{first - 1}', max(ranks, default=0)
        hits = sum(first <= rank <= last for rank in ranks)
        shares.append((name, 100.0 * hits / max(1, len(ranks))))
    return shares


def rank_figure(series: Mapping[str, Sequence[int]]) -> Figure:
    """Draw named rank lists side by side; use in :func:`chart_style`."""
    figure, axes = _axes(4.6, 2.6)
    shares = {name: rank_shares(ranks) for name, ranks in series.items()}
    most = max(share for bins in shares.values() for _, share in bins)
    width = 0.8 / len(shares)
    for number, (name, bins) in enumerate(shares.items()):
        left = (number - (len(shares) - 1) / 2) * width
        bars = axes.bar(
            [place + left for place in range(len(bins))],
            [share for _, share in bins],
            0.93 * width,
            color=SERIES[number],
        )
        told = [f'{x:.0f}' if x >= most / 12 else '' for _, x in bins]
        axes.bar_label(bars, told, padding=1, fontsize=7)
        for bar, (ranks, share) in zip(bars, bins, strict=True):
            bar.set_gid(_hint(f'{name}, rank {ranks}: {share:.1f}%'))
    axes.set_xticks(range(len(BINS)), [name for name, _ in bins])
    axes.yaxis.set_major_formatter('{x:g}%')
    axes.set_xlabel('rank of the right answer')
    return figure


def rank_histogram(series: Mapping[str, Sequence[int]]) -> Markup:
    """Draw a histogram of named rank lists."""
    with chart_style():
        return _to_svg(rank_figure(series), 'Histogram of ranks')


def line_chart(curves: Mapping[str, Points], title: str, unit: str) -> Markup:
    """Draw named curves over iterations, the first one boldest."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    with chart_style():
        figure, axes = _axes(4.6, 2.6)
        for number, (name, curve) in enumerate(curves.items()):
            color, width = SERIES[number], 1.1 if number else 2
            axes.plot(*zip(*curve, strict=True), color=color, lw=width)
            for x, y in curve if len(curve) <= 40 else ():
                hint = _hint(f'{name} at {x:g}: {y:.4g}{unit}')
                axes.plot(x, y, 'o', ms=4, color=color, gid=hint)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=''))
        axes.yaxis.set_major_formatter(f'{{x:g}}{unit}')
        axes.set_xlabel('iteration')
        return _to_svg(figure, title)


def embedding_map(
    projection: Projection, captions: Sequence[str], ranks: Sequence[int]
) -> Markup:
    """Draw texts and their videos; red lines where the rank is not 1."""
    both = projection.texts + projection.videos
    wide, tall = (
        max(point[axis] for point in both) - min(point[axis] for point in both)
        for axis in (0, 1)
    )
    with chart_style():
        flat = min(1.0, max(0.5, tall / (wide or 1.0)))
        figure, axes = _axes(5.6, 5.6 * flat)
        for row, text, video in zip(
            projection.rows, projection.texts, projection.videos, strict=True
        ):
            color = _SOFT if ranks[row] == 1 else _BAD
            axes.plot(
                *zip(text, video, strict=True), color=color, alpha=0.4, lw=0.8
            )
            hint = _hint(f'{captions[row]} (rank {ranks[row]})')
            axes.plot(*video, 's', ms=5.5, color=SERIES[1], gid=hint, zorder=3)
            axes.plot(*text, 'o', ms=5.5, color=SERIES[0], gid=hint, zorder=3)
        axes.set_aspect('equal', adjustable='datalim')
        axes.set_axis_off()
        return _to_svg(figure, projection.title)
