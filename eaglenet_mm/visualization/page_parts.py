"""The frame of a page and what its pages share; everything is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from eaglenet_mm.version import __version__

from .frame_strips import choose_slots
from .page_script import SCRIPT
from .page_style import STYLE
from .results_data import RetrievalResults, ShownResult, ShownVideo

_CAPTIONS = 5  # of a shown video


def document(
    title: str, body: Iterable[str], videos: Iterable[ShownVideo], data: Any
) -> str:
    """Write a page that needs nothing beside itself.

    Args:
        title (str): Of the window.
        body (Iterable[str]): Markup.
        videos (Iterable[ShownVideo]): Whose strips the page holds, once.
        data (Any): For the script.

    Returns:
        str: HTML. A policy in its head forbids the browser to load anything.
    """
    strips = ''.join(
        f'.v{video.column:d}{{background-image:'
        f'url(data:image/jpeg;base64,{video.strip})}}\n'
        for video in videos
        if video.strip
    )
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'"
    )
    return '\n'.join(
        [
            '<!doctype html>',
            '<html lang="en">',
            '<head>',
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f'<title>{escape(title)}</title>',
            f'<style>{STYLE}</style>',
            f'<style>\n{strips}</style>',
            '</head>',
            '<body>',
            *body,
            f'<footer>Written by eaglenet_mm {escape(__version__)}.</footer>',
            '<dialog id="large" aria-label="One result, enlarged"></dialog>',
            '<script type="application/json" id="data">'
            f'{json_for_html(data)}</script>',
            f'<script>{SCRIPT}</script>',
            '</body>',
            '</html>',
            '',
        ]
    )


def json_for_html(data: Any) -> str:
    """Write JSON that cannot end its script element or open a comment.

    Args:
        data (Any): What JSON can hold.

    Returns:
        str: ASCII without ``<``, ``>`` and ``&``.
    """
    text = json.dumps(data, separators=(',', ':'))
    for sign in '<>&':
        text = text.replace(sign, f'\\u{ord(sign):04x}')
    return text


def facts(about: Mapping[str, str]) -> str:
    """List facts by name."""
    return (
        '<dl class="facts">'
        + ''.join(
            f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>'
            for name, value in about.items()
        )
        + '</dl>'
    )


def stated_facts(about: Mapping[str, str]) -> dict[str, str]:
    """Join what belongs together, and leave out what the title says.

    Args:
        about (Mapping[str, str]): Of the results.

    Returns:
        dict[str, str]: Facts by name.
    """
    joined = [
        f'{name} {about[name]}'
        for name in ('split', 'protocol')
        if name in about
    ]
    rest = ('method', 'dataset', 'split', 'protocol')
    return {
        'data set': ', '.join([about.get('dataset', 'unknown'), *joined]),
        **{key: about[key] for key in about if key not in rest},
    }


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 0
) -> str:
    """Write a table of cells that are markup already.

    Args:
        head (Sequence[str]): Names of the columns; escaped here.
        rows (Iterable[Sequence[str]]): Each cell a whole ``<td>``.
        text (int): Columns at the left that hold sentences. Defaults to 0.

    Returns:
        str: Markup.
    """
    names = ''.join(
        f'<th class="text">{escape(name)}</th>'
        if place < text
        else f'<th>{escape(name)}</th>'
        for place, name in enumerate(head)
    )
    lines = ''.join(f'<tr>{"".join(cells)}</tr>' for cells in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{names}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div>'
    )


def legend(names: Iterable[str], marks: Sequence[str] = ()) -> str:
    """Name the colours of a chart."""
    marks = marks or ['c0', 'c1', 'c2', 'c3', 'c4', 'c5']
    return (
        '<div class="legend">'
        + ''.join(
            f'<span><b class="{mark}"></b>{escape(name)}</span>'
            for name, mark in zip(names, marks, strict=False)
        )
        + '</div>'
    )


def query_list(num_frames: int, num_models: int = 1) -> str:
    """Write the place where the script puts the queries.

    Args:
        num_frames (int): Frames of a video: long strips want wide cards.
        num_models (int): Models side by side. Defaults to 1.

    Returns:
        str: Markup.
    """
    slots = len(choose_slots(num_frames))
    width = min(560, max(170, slots * (60 if num_models == 1 else 29)))
    return (
        '<div class="bar"><div class="filters" id="filters" role="group" '
        'aria-label="Which queries"></div>'
        '<input id="search" type="search" placeholder="Search captions, ids"'
        ' aria-label="Search captions and ids">'
        '<label>Order <select id="sort"></select></label>'
        '<label>Bars <select id="weights"></select></label></div>'
        '<p class="status" id="status" role="status"></p>'
        f'<div id="queries" style="--card:{width}px"></div>'
        '<button class="more" id="more" type="button" hidden></button>'
        '<noscript><p class="warning">The queries are drawn by the script of '
        'this page: allow JavaScript.</p></noscript>'
    )


def videos_for_script(
    results: RetrievalResults, videos: Iterable[ShownVideo]
) -> dict[int, dict[str, Any]]:
    """Tell the script about the videos shown, by column."""
    captions: dict[int, list[str]] = {}
    for row, caption in enumerate(results.captions):
        for column in results.right_of(row):
            captions.setdefault(column, []).append(caption)
    return {
        video.column: dict(
            id=results.video_ids[video.column],
            captions=captions.get(video.column, [])[:_CAPTIONS],
            slots=video.slots,
            images=video.num_images,
            height=video.height,
            problem=video.problem,
        )
        for video in videos
    }


def right_for_script(results: RetrievalResults, row: int) -> dict[str, Any]:
    """Tell the script which video is right, or which are."""
    if results.right is None:
        return dict(v=results.targets[row])
    return dict(v=results.targets[row], a=results.right[row])


def answers_for_script(
    model: int, rank: int, shown: Iterable[ShownResult]
) -> dict[str, Any]:
    """Tell the script what a model answered."""
    return dict(
        i=model,
        r=rank,
        x=[
            dict(
                v=result.column,
                r=result.rank,
                s=result.score,
                f=result.frame_weights,
                t=result.text_weights,
            )
            for result in shown
        ],
    )


def weight_names(results: Iterable[RetrievalResults]) -> list[str]:
    """Name the frame weights that the results have, each once."""
    names: dict[str, None] = {}
    for part in results:
        for query in part.queries:
            for item in query.results:
                names.update(dict.fromkeys(item.frame_weights))
    return list(names)
