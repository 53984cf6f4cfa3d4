"""Hits as records, and as a page that needs nothing else."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from typing import Any

from rich.table import Table
from rich.text import Text

from eaglenet_mm.utils.printable import printable

from .searching import SearchHit
from .video_index import VideoIndex


def clock(seconds: float) -> str:
    """Write seconds as a player shows them: ``1:02:03.4`` or ``2:03.4``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f'{minutes}:{rest / 10:04.1f}'
    return f'{hours}:{minutes:02d}:{rest / 10:04.1f}' if hours else text


def hit_records(hits: Sequence[SearchHit]) -> list[dict[str, Any]]:
    """Describe hits for JSON.

    Args:
        hits (Sequence[SearchHit]): The best first.

    Returns:
        list[dict]: ``rank``, ``path``, ``start``, ``end`` and ``best_time``
        in seconds, ``score``, ``similarity`` and ``exists``, whether the file
        is still there.
    """
    return [
        dict(
            rank=rank,
            path=hit.entry.file.path,
            start=hit.entry.start,
            end=hit.entry.end,
            best_time=hit.best_time,
            score=hit.score,
            similarity=hit.similarity,
            exists=os.path.isfile(hit.entry.file.path),
        )
        for rank, hit in enumerate(hits, start=1)
    ]


def search_note(
    index: VideoIndex,
    shortlist: int | None = None,
    recall: float | None = None,
) -> str:
    """Say how an index was searched.

    Args:
        index (VideoIndex): What was searched.
        shortlist (int, optional): Rows that the head scored, 0 for all. None
            if only the first stage ran.
        recall (float, optional): Share of the best rows that the first stage
            let through, if that was found out.
    """
    kind = 'segments' if index.segment else 'videos'
    if shortlist is None:
        note = f'{len(index)} {kind}, compared by their mean frames'
    elif 0 < shortlist < len(index):
        note = (
            f'the head scored {shortlist} of {len(index)} {kind}, chosen by '
            'the first stage'
        )
    else:
        note = f'the head scored all of {len(index)} {kind}'
    if recall is not None:
        note += f', which let {100 * recall:.0f} % of the best pass'
    if index.model.untrained:
        parts = ' and '.join(index.model.untrained)
        note += f'; RANDOM WEIGHTS in {parts}: the order means nothing'
    return note


def hit_table(query: str, hits: Sequence[SearchHit], note: str) -> Table:
    """Lay out hits for a terminal.

    Args:
        query (str): What was searched for.
        hits (Sequence[SearchHit]): The best first.
        note (str): A line below.

    Returns:
        Table: Brackets in names are no markup in it.
    """
    table = Table(title=Text(printable(query[:200])), caption=Text(note))
    for name in ('rank', 'score', 'best at', 'from', 'to', 'file'):
        table.add_column(name, no_wrap=name != 'file', overflow='fold')
    for hit in hit_records(hits):
        times = (clock(hit[key]) for key in ('best_time', 'start', 'end'))
        gone = '' if hit['exists'] else '  (file is gone)'
        cells = (str(hit['rank']), f'{hit["score"]:.4f}', *times)
        table.add_row(*map(Text, (*cells, printable(hit['path']) + gone)))
    return table


def hit_page(
    query: str, hits: Sequence[SearchHit], index: VideoIndex, note: str
) -> str:
    """Write hits as one HTML page, thumbnails included.

    Args:
        query (str): What was searched for.
        hits (Sequence[SearchHit]): The best first.
        index (VideoIndex): Has their thumbnails.
        note (str): A line below the title.

    Returns:
        str: The page. Queries and names of files are text in it, whatever
        they hold.
    """
    rows = []
    for record, hit in zip(hit_records(hits), hits, strict=True):
        image = base64.b64encode(index.thumbnail(hit.entry.row_id)).decode()
        gone = '' if record['exists'] else '<b class="gone">file is gone</b>'
        folder, name = os.path.split(printable(record['path']))
        rows.append(
            f'<li><img src="data:image/jpeg;base64,{image}" alt="">'
            f'<div><h2>{escape(name)} {gone}</h2>'
            f'<p class="time">{clock(hit.entry.start)} to '
            f'{clock(hit.entry.end)}, best at <b>{clock(hit.best_time)}</b>'
            f'</p><p>score {hit.score:.4f}, first stage '
            f'{hit.similarity:.4f}</p>'
            f'<p class="path">{escape(folder)}</p></div></li>'
        )
    return _PAGE.format(
        title=escape(printable(query)), note=escape(note), rows='\n'.join(rows)
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 50rem; padding: 0 1rem; color: #1c2430; background: #f6f7f9; }}
h1 {{ font-size: 1.5rem; overflow-wrap: anywhere; }}
ol {{ list-style: none; padding: 0; }}
li {{ display: flex; gap: 1rem; background: #fff; border-radius: 10px;
  margin: .7rem 0; padding: .8rem; box-shadow: 0 1px 3px #0002; }}
img {{ width: 160px; height: 120px; object-fit: contain; background: #111;
  border-radius: 6px; flex: none; }}
h2 {{ font-size: 1rem; margin: 0; overflow-wrap: anywhere; }}
p {{ margin: .1rem 0; }}
.path, .note {{ color: #667; font-size: .85rem; overflow-wrap: anywhere; }}
.gone {{ color: #b3261e; font-size: .85rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="note">{note}</p>
<ol>
{rows}
</ol>
</body>
</html>
"""
