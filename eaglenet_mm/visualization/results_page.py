"""Page of a single evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup

from eaglenet_mm.visualization.charts import (
    SERIES,
    embedding_map,
    line_chart,
    rank_histogram,
)
from eaglenet_mm.visualization.page import (
    DIRECTIONS,
    Group,
    incomplete,
    query_cards,
    render,
    stated_facts,
)
from eaglenet_mm.visualization.results_data import TOP, RetrievalResults

_METRICS = {
    'R1': 'R@1', 'R5': 'R@5', 'R10': 'R@10', 'R50': 'R@50',
    'MdR': 'median rank', 'MnR': 'mean rank', 'ties': 'ties',
}  # fmt: skip
#: Shown only if captions may have several right videos or none.
_SEVERAL = ('mAP10', 'nDCG10', 'unanswerable')
_MOMENTS = {
    'mIoU': 'mIoU',
    'best_time': 'best time in the moment',
    'rank1': 'rank@1',
    'rank5': 'rank@5',
}
#: Measures of moments that stand beside others, or on their own.
_BESIDE = ('_chance', '_ceiling', '_mean', '_std', 'captions', 'captions_lost')


def results_page(results: RetrievalResults) -> str:
    """Render the page of an evaluation.

    Args:
        results (RetrievalResults): The results.

    Returns:
        str: Self-contained HTML.
    """
    method = results.about.get('method', 'A model')
    head, rows = _metrics(results.metrics)
    strips = [video for video in results.videos if video.strip]
    return render(
        'results.html.j2',
        title=f'{method} on {results.about.get("dataset", "a dataset")}',
        results=results,
        about=stated_facts(results.about),
        incomplete=incomplete(results),
        unread=sum(bool(video.problem) for video in results.videos),
        metric_head=head,
        metric_rows=rows,
        moment_rows=_moments(results.metrics),
        charts=list(_charts(results)),
        maps=[
            (item, embedding_map(item, results.captions, results.ranks))
            for item in results.projections
        ],
        failures=sum(rank > 1 for rank in results.ranks),
        asked=len(results.answerable_ranks()),
        confusions=[
            (
                results.captions[item.row],
                results.captions[item.other_row]
                if item.other_row >= 0
                else f'a video without caption: '
                f'{results.video_ids[item.column]}',
                str(item.count),
                f'{item.margin:.3f}',
                f'{item.caption_cosine:.3f}',
            )
            for item in results.confusions
        ],
        strips=len(strips),
        height=max((video.height for video in strips), default=0),
        mebibytes=sum(len(video.strip) for video in strips) / 2**20,
        **query_cards(
            [results],
            [method],
            _groups(results.ranks),
            {
                'worst rank first': lambda row: -results.ranks[row],
                'narrowest first': lambda row: _margin(results, row),
            },
        ),
    )


def _groups(ranks: list[int]) -> list[Group]:
    """Group queries by rank, which is 0 if no video is right."""
    tests = {
        'All': lambda rank: True,
        'Right first': lambda rank: rank == 1,
        'Failures': lambda rank: rank > 1,
        f'Not in the top {TOP}': lambda rank: rank > TOP,
        'No right video': lambda rank: rank == 0,
    }
    groups = [
        Group(name, {row for row, rank in enumerate(ranks) if test(rank)})
        for name, test in tests.items()
    ]
    return groups if groups[-1].rows else groups[:-1]


def _margin(results: RetrievalResults, row: int) -> float:
    """Score of the first video minus that of the second."""
    scores = results.top_scores[row]
    return scores[0] - scores[1] if len(scores) > 1 else 0.0


def _metrics(
    metrics: dict[str, float],
) -> tuple[list[str], list[list[str | tuple[str, str]]]]:
    """Table of both directions, raw and rescored, of the set and its parts."""
    found = [
        re.fullmatch(r'(|parts/[^/]+/)(t2v|v2t)([^/]*)/R1', key)
        for key in metrics
    ]
    places = sorted({(m[1], m[3]) for m in found if m})
    several = [
        x for x in _SEVERAL if any(key.endswith(f'/{x}') for key in metrics)
    ]
    bounds = any(f'{key}/R1_low' in metrics for key in DIRECTIONS)
    head = ['', *_METRICS.values(), *several, *['R@1 interval'] * bounds]
    rows: list[list[str | tuple[str, str]]] = []
    for part, kind in places:
        for key, name in DIRECTIONS.items():
            own = {
                x.removeprefix(f'{part}{key}{kind}/'): value
                for x, value in metrics.items()
                if x.startswith(f'{part}{key}{kind}/')
            }
            if 'R1' not in own:
                continue
            name += f' after {kind[1:]}' if kind else ''
            name += f', {part.split("/")[1]}' if part else ''
            row: list[str | tuple[str, str]] = [
                name,
                (f'{own["R1"]:.2f}', 'main'),
            ]
            for column in [*_METRICS, *several][1:]:
                digits = 0 if column in ('ties', 'unanswerable') else 2
                row.append(
                    f'{own[column]:.{digits}f}' if column in own else ''
                )
            if bounds:
                low, high = own.get('R1_low'), own.get('R1_high')
                row.append(
                    ''
                    if low is None or high is None
                    else f'{low:.2f} to {high:.2f}'
                )
            rows.append(row)
    return head, rows


def _moments(metrics: dict[str, float]) -> list[list[str]]:
    """Table of the measures of found moments, beside chance."""
    rows = []
    for key in metrics:
        name = key.removeprefix('moments/')
        if name == key or name.endswith(_BESIDE):
            continue
        own = name.removeprefix('corpus_').removeprefix('didemo_')
        found = re.fullmatch(r'R(\d+)_IoU([\d.]+)', own)
        said = _MOMENTS.get(own, own)
        ceiling = ''
        if found:
            said = f'R@{found[1]}, IoU ≥ {found[2]}'
            ceiling = key.replace(own, f'IoU{found[2]}_ceiling')
        for start, place in (
            ('corpus_', ', among all videos'),
            ('didemo_', ' of DiDeMo'),
        ):
            said += place if name.startswith(start) else ''
        cells = (key, f'{key}_chance', ceiling)
        rows.append(
            [said]
            + [f'{metrics[x]:.2f}' if x in metrics else '' for x in cells]
        )
    return rows


def _charts(
    results: RetrievalResults,
) -> Iterator[tuple[str, list[str], Markup]]:
    """Title, legend and picture of each chart."""
    ranks = {DIRECTIONS['t2v']: results.answerable_ranks()}
    if results.video_ranks:
        ranks[DIRECTIONS['v2t']] = results.video_ranks
    yield 'Ranks', list(ranks), rank_histogram(ranks)
    losses = results.curves.losses
    if losses:
        # the total loss first
        names = sorted(losses, key=lambda name: (name != 'loss', name))
        chosen = {name: losses[name] for name in names[: len(SERIES)]}
        yield 'Loss', list(chosen), line_chart(chosen, 'Loss', '')
    recalls = {
        name: results.curves.recalls[f'{key}/R1']
        for key, name in DIRECTIONS.items()
        if f'{key}/R1' in results.curves.recalls
    }
    if recalls:
        chart = line_chart(recalls, 'R@1', '%')
        yield 'R@1 in validation', list(recalls), chart
