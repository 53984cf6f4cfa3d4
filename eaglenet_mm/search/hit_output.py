"""Hits as records, and as a page that needs nothing else."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eaglenet_mm.search.searching import SearchAnswer
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.printable import printable
from eaglenet_mm.visualization.page import clock, render


def hit_records(answer: SearchAnswer) -> list[dict[str, Any]]:
    """Describe hits for JSON, with their ``rank`` from 1."""
    return [
        dict(rank=rank, **hit.to_dict())
        for rank, hit in enumerate(answer, start=1)
    ]


def search_note(
    index: VideoIndex, answer: SearchAnswer, recall: float | None = None
) -> str:
    """Say how an index was searched, and what speaks against the answer."""
    kind = 'segments' if index.segment else 'videos'
    if answer.total and not answer.scored:
        note = f'{answer.total} {kind}, compared by their mean frames'
    elif answer.scored < answer.total:
        note = f'{answer.scored} of {answer.total} {kind} looked at closely'
    else:
        note = f'all {answer.total} {kind} looked at closely'
    if recall is not None:
        note += f', among them {100 * recall:.0f} % of the best'
    if answer.nothing_found:
        note += '; PROBABLY NOTHING here shows this'
    if answer.p_value is not None:
        note += f'; {100 * answer.p_value:.1f} % of good queries score as low'
    for words, reason in (
        (answer.unknown_words, 'not known to the model'),
        (answer.unseen_words, 'not in its training captions'),
    ):
        if words:
            note += f'; {reason}: {", ".join(words)}'
    if answer.cut_at is not None:
        note += f'; only the first {answer.cut_at} characters were read'
    if index.model.untrained:
        parts = ' and '.join(index.model.untrained)
        note += f'; RANDOM WEIGHTS in {parts}: the order means nothing'
    return note


def hit_table(query: str, answer: SearchAnswer, note: str) -> Table:
    """Lay out hits for a terminal."""
    table = Table(title=Text(printable(query[:200])), caption=Text(note))
    for name in ('rank', 'score', 'best at', 'from', 'to', 'file'):
        table.add_column(name, no_wrap=name != 'file', overflow='fold')
    for hit in hit_records(answer):
        times = (clock(hit[key]) for key in ('best_time', 'start', 'end'))
        gone = '' if hit['exists'] else '  (file is gone)'
        cells = (str(hit['rank']), f'{hit["score"]:.4f}', *times)
        table.add_row(*map(Text, (*cells, printable(hit['path']) + gone)))
    return table


def hit_page(
    query: str, answer: SearchAnswer, index: VideoIndex, note: str
) -> str:
    """Write hits as one HTML page with thumbnails and links to the files."""
    records = hit_records(answer)
    for record in records:
        path = os.path.abspath(record['path'])
        folder, name = os.path.split(printable(record['path']))
        thumbnail = index.thumbnail(record['moment_id'])
        record.update(
            folder=folder,
            image=base64.b64encode(thumbnail).decode(),
            link=Path(path).as_uri() if record['exists'] else '',
            name=name,
        )
    return render(
        'hits.html.j2', title=printable(query), note=note, hits=records
    )
