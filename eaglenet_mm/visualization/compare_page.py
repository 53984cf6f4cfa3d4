"""Results of several models side by side, for the same queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from .charts import rank_histogram
from .comparing import Outcome, check_comparable, outcomes
from .page_metrics import DIRECTIONS, incomplete
from .page_parts import (
    answers_for_script,
    document,
    legend,
    query_list,
    right_for_script,
    stated_facts,
    table,
    videos_for_script,
    weight_names,
)
from .results_data import RetrievalResults, ShownResult, ShownVideo

_METRICS = (
    ('R1', 'R@1'), ('R5', 'R@5'), ('R10', 'R@10'), ('MdR', 'median rank'),
    ('MnR', 'mean rank'),
)  # fmt: skip


def compare_page(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> str:
    """Write a page of several evaluations of the same set.

    Args:
        results (Sequence[RetrievalResults]): Of 2 to 6 models.
        names (Sequence[str]): What to call them.

    Returns:
        str: HTML that loads nothing.

    Raises:
        ValueError: If they cannot be compared; the message says what
            differs.
    """
    check_comparable(results, names)
    first = results[0]
    rows = sorted({query.row for part in results for query in part.queries})
    groups = outcomes(results, names)
    videos = _joined_videos(results)
    title = f'{", ".join(names)} on {first.about.get("dataset", "a data set")}'
    body = [
        f'<header><h1>{escape(title)}</h1>',
        f'<p class="lead">{len(first.captions)} captions, '
        f'{len(first.video_ids)} videos, the same for all</p>',
        *_warnings(results, names),
        '</header><main>',
        *_metrics(results, names),
        *_agreement(results, names, groups, rows),
        '<h2>Queries</h2>',
        f'<p class="note">{len(rows)} of {len(first.captions)} queries: all '
        'that the page of one of the models shows. The first five videos of '
        'each model, and behind them the right one where it is not among '
        'them. A query that the page of a model does not show has no bars for '
        'it, and a video that none shows has no frames: more with '
        '--show-queries of tools/test.py. Bars are the weights that each '
        'model itself gives to the frames.</p>',
        query_list(max(part.num_frames for part in results), len(results)),
        *_sources(results, names),
        '</main>',
    ]
    data = dict(
        models=list(names),
        filters=[group.name for group in groups],
        sorts=['of the set', 'ranks differ most', 'caption'],
        weights=weight_names(results),
        ids=first.video_ids,
        videos=videos_for_script(first, videos),
        queries=_queries(results, groups, rows),
    )
    return document(title, body, videos, data)


def _joined_videos(results: Sequence[RetrievalResults]) -> list[ShownVideo]:
    """Take each video once, with its frames if any of the pages has them."""
    videos: dict[int, ShownVideo] = {}
    for part in results:
        for video in part.videos:
            known = videos.get(video.column)
            if known is None or (video.strip and not known.strip):
                videos[video.column] = video
    return [videos[column] for column in sorted(videos)]


def _warnings(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> Iterator[str]:
    for part, name in zip(results, names, strict=True):
        if incomplete(part):
            text = f'{name}: {incomplete(part)}'
            yield f'<p class="warning">{escape(text)}</p>'


def _metrics(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> Iterator[str]:
    yield '<h2>Metrics</h2>'
    for key, direction in DIRECTIONS:
        cells = [[f'<td>{escape(name)}</td>'] for name in names]
        for metric, _ in _METRICS:
            values = [part.metrics.get(f'{key}/{metric}') for part in results]
            known = [value for value in values if value is not None]
            choose = min if metric in ('MdR', 'MnR') else max
            for row, value in zip(cells, values, strict=True):
                best = known and value == choose(known)
                text = '' if value is None else f'{value:.2f}'
                row.append(f'<td{" class=best" if best else ""}>{text}</td>')
        head = [direction, *(name for _, name in _METRICS)]
        yield (
            '<div class="panel" style="margin-top:12px">'
            f'{table(head, cells)}</div>'
        )
    yield '<p class="note">The best of each column is green.</p>'


def _agreement(
    results: Sequence[RetrievalResults],
    names: Sequence[str],
    groups: Sequence[Outcome],
    rows: Sequence[int],
) -> Iterator[str]:
    """Where the models differ, over all queries and over those shown."""
    total, shown = len(groups[0].rows), set(rows)
    cells = [
        [
            f'<td>{escape(group.name)}</td>',
            f'<td class="main">{len(group.rows)}</td>',
            f'<td>{100 * len(group.rows) / max(1, total):.1f}%</td>',
            f'<td>{len(shown & group.rows)}</td>',
        ]
        for group in groups
    ]
    ranks = {
        name: part.answerable_ranks()
        for name, part in zip(names, results, strict=True)
    }
    head = ('', 'queries', 'share', 'shown')
    yield '<h2>Where they differ</h2><div class="grid">'
    yield f'<div class="panel">{table(head, cells)}</div>'
    yield f'<figure class="panel"><h3>Ranks, text to video</h3>{legend(ranks)}'
    yield f'{rank_histogram(ranks)}</figure></div>'
    yield '<p class="note">Right means that the right video ranks first.</p>'


def _sources(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> Iterator[str]:
    yield '<h2>Sources</h2>'
    facts = [stated_facts(part.about) for part in results]
    keys = list(dict.fromkeys(key for part in facts for key in part))
    cells = [
        [
            f'<td class="text">{escape(name)}</td>',
            *(
                f'<td class="text">{escape(part.get(key, ""))}</td>'
                for key in keys
            ),
        ]
        for name, part in zip(names, facts, strict=True)
    ]
    page = table(['', *keys], cells, len(keys) + 1)
    yield f'<div class="panel">{page}</div>'


def _queries(
    results: Sequence[RetrievalResults],
    groups: Sequence[Outcome],
    rows: Sequence[int],
) -> list[dict[str, Any]]:
    """What the script draws, one entry a query."""
    first = results[0]
    shown = [
        {query.row: query.results for query in part.queries}
        for part in results
    ]
    order = sorted(rows, key=lambda row: first.captions[row])
    places = {row: place for place, row in enumerate(order)}
    queries = []
    for row in rows:
        ranks = [part.ranks[row] for part in results]
        queries.append(
            dict(
                c=first.captions[row],
                **right_for_script(first, row),
                t=[i for i, group in enumerate(groups) if row in group.rows],
                s=[min(ranks) - max(ranks), places[row]],
                m=[
                    answers_for_script(
                        number,
                        part.ranks[row],
                        shown[number].get(row) or _plain_answers(part, row),
                    )
                    for number, part in enumerate(results)
                ],
            )
        )
    return queries


def _plain_answers(part: RetrievalResults, row: int) -> list[ShownResult]:
    """The first videos of a query that the page of a model does not show."""
    pairs = zip(part.top_columns[row], part.top_scores[row], strict=True)
    answers = [
        ShownResult(column, rank, score)
        for rank, (column, score) in enumerate(pairs, 1)
    ]
    # of several right ones, which is the first is not kept
    if part.ranks[row] > len(answers) and part.right is None:
        answers.append(
            ShownResult(part.targets[row], part.ranks[row], score=None)
        )
    return answers
