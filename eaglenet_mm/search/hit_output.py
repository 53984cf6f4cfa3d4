"""Hits as records, and as a page that needs nothing else."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eaglenet_mm.search.searching import SearchHit
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.printable import printable
from eaglenet_mm.visualization.page import clock, render


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
    """Write hits as one HTML page with thumbnails and links to the files.

    Args:
        query (str): What was searched for.
        hits (Sequence[SearchHit]): The best first.
        index (VideoIndex): Has their thumbnails.
        note (str): A line below the title.

    Returns:
        str: The page. Queries and names of files are text in it, whatever
        they hold.
    """
    records = hit_records(hits)
    for record, hit in zip(records, hits, strict=True):
        path = os.path.abspath(record['path'])
        folder, name = os.path.split(printable(record['path']))
        thumbnail = index.thumbnail(hit.entry.row_id)
        record.update(
            folder=folder,
            image=base64.b64encode(thumbnail).decode(),
            link=Path(path).as_uri() if record['exists'] else '',
            name=name,
        )
    return render(
        'hits.html.j2', title=printable(query), note=note, hits=records
    )
