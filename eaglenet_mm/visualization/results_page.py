"""The page of one evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from .charts import embedding_map, line_chart, matrix_chart, rank_histogram
from .page_metrics import DIRECTIONS, incomplete, metrics_section
from .page_parts import (
    answers_for_script,
    document,
    facts,
    legend,
    query_list,
    right_for_script,
    stated_facts,
    table,
    videos_for_script,
    weight_names,
)
from .results_data import TOP, RetrievalResults

_FILTERS = (
    'All', 'Right first', 'Failures', f'Not in the top {TOP}',
    'No right video',
)  # fmt: skip
_SORTS = (
    'of the set', 'worst rank first', 'narrowest first', 'caption',
)  # fmt: skip


def results_page(results: RetrievalResults) -> str:
    """Write the page of an evaluation, self-contained.

    Args:
        results (RetrievalResults): What to show.

    Returns:
        str: HTML that loads nothing.
    """
    method = results.about.get('method', 'A model')
    title = f'{method} on {results.about.get("dataset", "a data set")}'
    body = [
        *_header(title, results),
        '<main>',
        *metrics_section(results),
        *_charts(results),
        *_maps(results),
        *_confusions(results),
        '<h2 id="list">Queries</h2>',
        f'<p class="note">{escape(_explanation(results))}</p>',
        query_list(results.num_frames),
        '</main>',
    ]
    return document(title, body, results.videos, _for_script(results))


def _header(title: str, results: RetrievalResults) -> Iterator[str]:
    yield f'<header><h1>{escape(title)}</h1>'
    yield (
        f'<p class="lead">{len(results.captions)} captions, '
        f'{len(results.video_ids)} videos, {results.num_frames} frames of '
        'each</p>'
    )
    if incomplete(results):
        yield f'<p class="warning">{escape(incomplete(results))}</p>'
    unread = sum(bool(video.problem) for video in results.videos)
    if unread:
        yield (
            f'<p class="warning">{unread} of the {len(results.videos)} videos '
            'shown cannot be read now, so their frames are missing here.</p>'
        )
    yield facts(stated_facts(results.about))
    yield (
        '<nav><a href="#metrics">Metrics</a><a href="#ranks">Ranks and '
        'training</a><a href="#maps">Map</a><a href="#confusions">Captions '
        'taken for each other</a><a href="#list">Queries</a></nav>'
    )
    yield '</header>'


def _charts(results: RetrievalResults) -> Iterator[str]:
    ranks = {'text to video': results.answerable_ranks()}
    if results.video_ranks:
        ranks['video to text'] = results.video_ranks
    yield '<h2 id="ranks">Ranks and training</h2><div class="grid thirds">'
    yield f'<figure class="panel"><h3>Ranks</h3>{legend(ranks)}'
    yield f'{rank_histogram(ranks)}</figure>'
    curves = results.curves
    if curves.losses:
        losses = dict(sorted(curves.losses.items(), key=_by_importance)[:6])
        yield f'<figure class="panel"><h3>Loss</h3>{legend(losses)}'
        yield f'{line_chart(losses, "Loss", "")}</figure>'
    if curves.recalls:
        recalls = {
            name: curves.recalls[f'{key}/R1']
            for key, name in DIRECTIONS
            if f'{key}/R1' in curves.recalls
        }
        yield '<figure class="panel"><h3>R@1 in validation</h3>'
        yield f'{legend(recalls)}'
        yield f'{line_chart(recalls, "R@1", "%")}</figure>'
    yield f'</div><p class="note">{escape(curves.note)}</p>'


def _by_importance(item: tuple[str, Any]) -> tuple[bool, str]:
    """The whole loss first."""
    return item[0] != 'loss', item[0]


def _maps(results: RetrievalResults) -> Iterator[str]:
    if not results.projections:
        return
    count = len(results.projections[0].rows)
    yield '<h2 id="maps">Texts and videos in the plane</h2>'
    yield (
        f'<p class="note">{count} captions and their own videos, each pair '
        'joined by a line, which is red where the video is not ranked first. '
        'Each map is the plane in which its vectors of unit length differ '
        'most (principal components): distances in it are at most the true '
        'ones, and axes of two maps cannot be compared.</p>'
    )
    yield (
        '<div class="maps"><label class="toggle"><input type="checkbox"> '
        'Leave out the gap between texts and videos (each side centred)'
        '</label><div class="grid">'
    )
    for item in results.projections:
        picture = embedding_map(item, results.captions, results.ranks)
        names = (item.text_name, 'video')
        yield (
            f'<figure class="panel {"centred" if item.centred else "plain"}">'
            f'<h3>{escape(item.title)}</h3>'
            f'{legend(names, ["c0 round", "c1"])}{picture}'
            f'<figcaption>Mean cosine of a pair {item.own_cosine:.3f}; the '
            f'plane holds {item.explained:.0%} of the variance.'
            '</figcaption></figure>'
        )
    yield '</div></div>'


def _confusions(results: RetrievalResults) -> Iterator[str]:
    failures = sum(rank > 1 for rank in results.ranks)
    asked = len(results.answerable_ranks())
    yield '<h2 id="confusions">Captions taken for each other</h2>'
    if not results.confusions:
        yield '<p class="note">Every caption finds its video first.</p>'
        return
    yield (
        f'<p class="note">{failures} of {asked} captions return '
        'another video first. These pairs of videos do so most often, both '
        'ways counted.</p>'
    )
    rows = []
    for item in results.confusions:
        other = (
            results.captions[item.other_row]
            if item.other_row >= 0
            else f'a video without caption: {results.video_ids[item.column]}'
        )
        rows.append(
            [
                f'<td class="text">{escape(results.captions[item.row])}</td>',
                f'<td class="text">{escape(other)}</td>',
                f'<td>{item.count}</td>',
                f'<td>{item.margin:.3f}</td>',
                f'<td>{item.caption_cosine:.3f}</td>',
            ]
        )
    head = ('caption', 'taken for', 'times', 'margin', 'cosine of both')
    yield f'<div class="panel">{table(head, rows, 2)}</div>'
    if len(results.matrix.columns) < 2:
        return
    chart = matrix_chart(results.matrix, results.captions)
    yield (
        '<figure class="panel" style="margin-top:16px"><h3>Scores among '
        'them</h3><div class="scroll"><div style="min-width:820px">'
        f'{chart}</div></div><figcaption>Rows: the captions of a video, of '
        'which the first is written; columns: the same videos. Darker is a '
        'higher mean score, a number counts captions that rank this video '
        'first of all, green is right.</figcaption></figure>'
    )


def _explanation(results: RetrievalResults) -> str:
    """Say which queries are shown, and how to read a card."""
    names = weight_names([results])
    parts = [results.selection]
    if names:
        parts.append(
            'Bars under a strip are weights of its frames: '
            + ', '.join(
                {
                    'attention': 'attention, what the pooling takes of each '
                    'frame (sums to 1)',
                    'cosine': 'cosine of the sentence and each frame as the '
                    'encoders give them (bars over the range of the query)',
                }.get(name, name)
                for name in names
            )
            + '.'
        )
    if any(
        'beta' in item.text_weights
        for query in results.queries
        for item in query.results
    ):
        parts.append(
            'β are the weights of the sentence (first bar) and its candidates '
            'in the enriched text of this pair.'
        )
    heights = [video.height for video in results.videos if video.strip]
    if heights:
        size = sum(len(video.strip) for video in results.videos) / 2**20
        parts.append(
            f'Frames are those the model sees, {max(heights)} pixels high, '
            f'{len(heights)} videos in {size:.1f} MiB; hatched is padding.'
        )
    parts.append('Scores are those of the head, before post-processing.')
    return ' '.join(parts)


def _for_script(results: RetrievalResults) -> dict[str, Any]:
    """Give the script its data."""
    rows = sorted(
        (query.row for query in results.queries),
        key=lambda row: results.captions[row],
    )
    places = {row: place for place, row in enumerate(rows)}
    queries = []
    for query in results.queries:
        row, rank = query.row, results.ranks[query.row]
        queries.append(
            dict(
                c=results.captions[row],
                **right_for_script(results, row),
                t=_filters_of(rank),
                s=[-rank, _margin(results, row), places[row]],
                m=[answers_for_script(0, rank, query.results)],
            )
        )
    return dict(
        models=[results.about.get('method', '')],
        filters=_FILTERS[: 4 + (0 in results.ranks)],
        sorts=_SORTS,
        weights=weight_names([results]),
        ids=results.video_ids,
        videos=videos_for_script(results, results.videos),
        queries=queries,
    )


def _filters_of(rank: int) -> list[int]:
    """Places of the filters that let a query through."""
    if not rank:
        return [0, 4]
    return [0, 1 if rank == 1 else 2] + [3] * (rank > TOP)


def _margin(results: RetrievalResults, row: int) -> float:
    """Score of the first video minus that of the second."""
    scores = results.top_scores[row]
    return scores[0] - scores[1] if len(scores) > 1 else 0.0
